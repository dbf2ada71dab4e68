//! A failure of the new process in words.

use std::io;

use berth_oci::runtime::{Hook, Process, Spec};

use crate::child::{Failure, Step};
use crate::error::Error;
use crate::plan::device_list;

/// The step of a number from the child; every number it sends is one of these.
const STEPS: [Step; 41] = [
    Step::Talk,
    Step::Join,
    Step::Unshare,
    Step::Root,
    Step::Time,
    Step::Cgroup,
    Step::Propagation,
    Step::RootMount,
    Step::Target,
    Step::Forbidden,
    Step::Mount,
    Step::MountChange,
    Step::CopyUp,
    Step::Device,
    Step::DevLinks,
    Step::Terminal,
    Step::Console,
    Step::CreateHook,
    Step::StartHook,
    Step::HookRun,
    Step::Pivot,
    Step::Hostname,
    Step::Domainname,
    Step::Sysctl,
    Step::Readonly,
    Step::Mask,
    Step::Keyring,
    Step::Streams,
    Step::Cwd,
    Step::CwdOutside,
    Step::Label,
    Step::Limit,
    Step::Scheduling,
    Step::Identity,
    Step::NoNewPrivileges,
    Step::Seccomp,
    Step::NotInPath,
    Step::Stat,
    Step::Access,
    Step::Gate,
    Step::Execute,
];

/// The failure that a message carries.
pub(crate) fn failure(numbers: [i32; 3]) -> Option<Failure> {
    let step = STEPS.iter().find(|step| **step as i32 == numbers[0])?;
    Some(Failure { step: *step, index: numbers[1], code: numbers[2] })
}

/// What the failure means for this container and process.
pub(crate) fn error(failure: Failure, spec: &Spec, process: &Process) -> Error {
    let source = io::Error::from_raw_os_error(failure.code);
    let index = usize::try_from(failure.index).unwrap_or(0);
    let name = process.args.first().map_or("", String::as_str);
    let reason = reason(failure.code);
    let program = |what: String| Error::Process { what };
    match failure.step {
        Step::NotInPath => program(format!("exec: {name:?}: executable file not found in $PATH")),
        Step::Stat => program(format!("exec: {name:?}: stat {name}: {reason}")),
        Step::Access => program(format!("exec: {name:?}: {reason}")),
        Step::Execute => program(format!("exec {name}: {reason}")),
        Step::Cwd => program(format!("chdir to cwd ({:?}) set in config.json failed: {reason}", process.cwd)),
        Step::CwdOutside => program(
            "current working directory is outside of container mount namespace root -- possible container breakout detected"
                .into(),
        ),
        Step::CreateHook => hook(spec, "createContainer", index, failure.code),
        Step::StartHook => hook(spec, "startContainer", index, failure.code),
        step => Error::Step { what: doing(step, index, spec, process), source },
    }
}

/// The kernel's answer as Go prints it, in lower case.
fn reason(code: i32) -> String {
    let error = Error::Step { what: String::new(), source: io::Error::from_raw_os_error(code) };
    error.chain().trim_start_matches(": ").to_owned()
}

fn hook(spec: &Spec, point: &'static str, index: usize, status: i32) -> Error {
    let hooks = spec.hooks.clone().unwrap_or_default();
    let all: &[Hook] =
        if point == "createContainer" { &hooks.create_container } else { &hooks.start_container };
    let path = all.get(index).map(|hook| hook.path.clone().into()).unwrap_or_default();
    Error::Hook { point, index, path, what: ending(status) }
}

/// A hook's wait status; 0 stands for a timeout.
pub(crate) fn ending(status: i32) -> String {
    match status {
        0 => "it took too long and was killed".into(),
        status if libc::WIFSIGNALED(status) => format!("killed by signal {}", libc::WTERMSIG(status)),
        status => format!("exit status {}", libc::WEXITSTATUS(status)),
    }
}

fn doing(step: Step, index: usize, spec: &Spec, process: &Process) -> String {
    let linux = spec.linux.clone().unwrap_or_default();
    let mount = || {
        let mount = spec.mounts.get(index).cloned().unwrap_or_default();
        let from = if mount.source.is_empty() { mount.kind } else { mount.source };
        (from, mount.destination)
    };
    let at = |all: &[String]| all.get(index).cloned().unwrap_or_default();
    match step {
        Step::Target => {
            let (from, to) = mount();
            format!("error mounting {from:?} to rootfs at {to:?}: cannot make the mountpoint")
        }
        Step::Forbidden => {
            let (from, to) = mount();
            format!(
                "error mounting {from:?} to rootfs at {to:?}: the path leads into /proc or /sys, or is not an ordinary directory"
            )
        }
        Step::Mount => {
            let (from, to) = mount();
            format!("error mounting {from:?} to rootfs at {to:?}")
        }
        Step::MountChange => format!("error changing the mount at {:?}", mount().1),
        Step::CopyUp => format!("error copying the content of {:?} into its tmpfs", mount().1),
        Step::Device => {
            let devices = device_list(&linux);
            format!("error creating device node {:?}", devices.get(index).map_or("", |d| &d.path))
        }
        Step::Sysctl => {
            let (key, value) =
                linux.sysctl.iter().nth(index).map(|(k, v)| (k.clone(), v.clone())).unwrap_or_default();
            format!("error setting sysctl {key}={value}")
        }
        Step::Readonly => format!("can't make {:?} read-only", at(&linux.readonly_paths)),
        Step::Mask => format!("can't mask path {:?}", at(&linux.masked_paths)),
        Step::Join => format!("cannot join namespace {index} of the container"),
        Step::Cgroup => format!("cannot join cgroup {index} of the container"),
        Step::Limit => {
            let limit = process.rlimits.get(index).cloned().unwrap_or_default();
            format!("error setting rlimit {} to {}:{}", limit.kind, limit.soft, limit.hard)
        }
        Step::Identity => {
            let what = [
                "capability bounding set",
                "keep capabilities",
                "groups",
                "group",
                "user",
                "capabilities",
                "ambient capabilities",
            ];
            format!("error setting {}", what.get(index).unwrap_or(&"identity"))
        }
        Step::Scheduling => {
            let what = ["scheduler", "I/O priority", "memory policy", "CPU affinity", "personality"];
            format!("error setting {}", what.get(index).unwrap_or(&"scheduling"))
        }
        step => plain(step).to_owned(),
    }
}

fn plain(step: Step) -> &'static str {
    match step {
        Step::Unshare => "cannot make new namespaces",
        Step::Root => "cannot become root in the user namespace",
        Step::Time => "cannot set the clocks of the time namespace",
        Step::Propagation => "cannot change mount propagation",
        Step::RootMount => "error preparing rootfs",
        Step::DevLinks => "error making links in /dev",
        Step::Terminal => "cannot make a terminal: is /dev/pts a devpts of the container?",
        Step::Console => "cannot mount the terminal at /dev/console",
        Step::HookRun => "cannot run a hook in the container",
        Step::Pivot => "error jailing process inside rootfs: pivot_root",
        Step::Hostname => "cannot set hostname",
        Step::Domainname => "cannot set domainname",
        Step::Keyring => "unable to join session keyring",
        Step::Streams => "cannot put the standard streams in place",
        Step::Label => "unable to apply the security label",
        Step::NoNewPrivileges => "cannot set no_new_privs",
        Step::Seccomp => "unable to init seccomp",
        Step::Gate => "error waiting for the start",
        _ => "error talking to the new process",
    }
}
