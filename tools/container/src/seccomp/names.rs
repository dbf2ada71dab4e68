//! Architectures and their numbers.

use super::table::TABLE;
use super::x32::X32;

/// An architecture whose calls this machine's kernel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Architecture {
    /// The machine's own.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    /// The machine's own.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// What x32 numbers have set, to be told from x86_64's.
    pub(super) const X32_BIT: u32 = 0x4000_0000;

    /// `AUDIT_ARCH_…`, as the kernel names it to a filter.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The least number.
    pub(super) fn base(self) -> u32 {
        if self == Self::X32 { Self::X32_BIT } else { 0 }
    }

    /// The number of a call, if it has one; `row` is its [`row`].
    pub(super) fn number(self, name: &str, row: Option<&Row>) -> Option<u32> {
        if self == Self::X32
            && let Ok(at) = X32.binary_search_by_key(&name, |(known, _)| known)
        {
            return Some(Self::X32_BIT | X32[at].1);
        }
        if self == Self::Arm
            && let Some((_, number)) = ARM_PRIVATE.iter().find(|(known, _)| *known == name)
        {
            return Some(*number);
        }
        let column = match self {
            Self::X86_64 | Self::X32 => 0,
            Self::X86 => 1,
            Self::Aarch64 => 2,
            Self::Arm => 3,
        };
        let number = u32::try_from(row?[column]).ok()?;
        Some(number | self.base())
    }
}

/// The numbers of a call, by architecture.
pub(super) type Row = [i32; 4];

/// A call's numbers. Looked up once for all architectures of a filter: there are hundreds of names in one.
pub(super) fn row(name: &str) -> Option<&'static Row> {
    TABLE.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| &TABLE[at].1)
}

/// ARM's private calls, far above the others.
const ARM_PRIVATE: [(&str, u32); 3] =
    [("breakpoint", 0xf_0001), ("cacheflush", 0xf_0002), ("set_tls", 0xf_0005)];

/// What a name of an architecture stands for.
pub(super) enum Named {
    /// One whose calls this machine may run.
    Here(Architecture),
    /// One that this machine runs no calls of.
    Elsewhere,
    /// None.
    Unknown,
}

/// The architecture of this name.
pub(super) fn architecture(name: &str) -> Named {
    let known = match name.strip_prefix("SCMP_ARCH_").unwrap_or_default() {
        "X86_64" => Architecture::X86_64,
        "X86" => Architecture::X86,
        "X32" => Architecture::X32,
        "AARCH64" => Architecture::Aarch64,
        "ARM" => Architecture::Arm,
        "NATIVE" => Architecture::NATIVE,
        "MIPS" | "MIPS64" | "MIPS64N32" | "MIPSEL" | "MIPSEL64" | "MIPSEL64N32" | "PPC" | "PPC64"
        | "PPC64LE" | "S390" | "S390X" | "PARISC" | "PARISC64" | "RISCV64" | "LOONGARCH64" | "M68K"
        | "SH" | "SHEB" => return Named::Elsewhere,
        _ => return Named::Unknown,
    };
    let family = |a| matches!(a, Architecture::X86_64 | Architecture::X86 | Architecture::X32);
    if family(known) == family(Architecture::NATIVE) { Named::Here(known) } else { Named::Elsewhere }
}
