//! Signals by name.

use berth_types::{Error, Result};

/// Linux' signals on the architectures that berth runs on, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const RT_MIN: u32 = 34;
const RT_MAX: u32 = 64;

/// The number of a signal: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`.
pub fn signal(text: &str) -> Result<u32> {
    let wrong = || Error::invalid_argument(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=RT_MAX).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return Ok(at as u32 + 1);
    }
    let number = match name {
        "IOT" => 6,
        "POLL" => 29,
        "CLD" => 17,
        "RTMIN" => RT_MIN,
        "RTMAX" => RT_MAX,
        _ => {
            let offset = |text: &str| text.parse::<u32>().ok().filter(|offset| *offset <= RT_MAX - RT_MIN);
            match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
                (Some(up), _) => RT_MIN + offset(up).ok_or_else(wrong)?,
                (_, Some(down)) => RT_MAX - offset(down).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            }
        }
    };
    Ok(number)
}

/// The name of a signal without `SIG`; a real-time signal's number.
pub fn signal_name(number: u32) -> String {
    let known = (number as usize).checked_sub(1).and_then(|at| NAMES.get(at));
    known.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_signal_is_understood() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGWINCH", 28), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIG", "NOPE", "RTMIN+99", "-9"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
        assert_eq!(signal_name(15), "TERM");
    }
}
