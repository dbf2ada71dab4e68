//! The processes in a container, by `ps`.

use std::collections::BTreeSet;
use std::process::Command;

use berth_types::{Error, Result};

use crate::{Found, Workload};

/// Processes in columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    /// The names of the columns.
    pub titles: Vec<String>,
    /// One process a row.
    pub rows: Vec<Vec<String>>,
}

impl Workload {
    /// Lists the processes of a container that runs as `ps ARGUMENTS` shows them (`-ef` without any).
    pub async fn top(&self, found: &Found, arguments: &[String]) -> Result<Processes> {
        self.running_pid(&found.container.id).await?;
        let pids = self.catalog.tasks(&self.scope).pids(&found.container.id).await?;
        let pids: BTreeSet<u32> = pids.into_iter().map(|process| process.pid).collect();
        if arguments.is_empty() {
            return Ok(own(&pids));
        }
        let output = Command::new("ps")
            .args(arguments)
            .output()
            .map_err(|error| Error::io("cannot run ps of the host", error))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::invalid_argument(format!("error running ps: {text}")));
        }
        chosen(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

/// The lines of a `ps` whose PID is one of `pids`.
fn chosen(text: &str, pids: &BTreeSet<u32>) -> Result<Processes> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::invalid_argument("couldn't find the PID column in the output of ps"));
    };
    let mut rows = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let pid = fields.get(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: u32| pids.contains(&pid)) {
            if fields.len() > titles.len() {
                let rest = fields.split_off(titles.len() - 1).join(" ");
                fields.push(rest);
            }
            rows.push(fields);
        }
    }
    Ok(Processes { titles, rows })
}

/// What `ps -ef` shows, read from /proc, so that a host without ps can do it.
fn own(pids: &BTreeSet<u32>) -> Processes {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
    let rows = pids.iter().filter_map(|pid| row(*pid)).collect();
    Processes { titles, rows }
}

fn row(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = (&stat[stat.find('(')? + 1..stat.rfind(')')?], &stat[stat.rfind(')')? + 1..]);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    let cpu = (number(11) + number(12)) / hertz;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = (uptime - number(19) as f64 / hertz as f64).max(0.0);
    let began = std::time::SystemTime::now().checked_sub(std::time::Duration::from_secs_f64(age))?;
    let share = if age >= 1.0 { (cpu as f64 * 100.0 / age) as u64 } else { 0 };
    let began = jiff::Timestamp::try_from(began).ok()?.to_zoned_datetime(jiff::tz::TimeZone::system());
    let format = if age < 86_400.0 { "%H:%M" } else { "%b%d" };
    let tty = number(4);
    // Major 136 to 143 are pseudo terminals (devices.txt); the minor's upper bits lie above the major.
    let tty = if tty == 0 { "?".to_owned() } else { format!("pts/{}", (tty & 0xff) | (tty >> 12 & 0xfff00)) };
    Some(vec![
        user(uid),
        pid.to_string(),
        fields.get(1)?.to_string(),
        share.to_string(),
        began.strftime(format).to_string(),
        tty,
        format!("{:02}:{:02}:{:02}", cpu / 3600, cpu / 60 % 60, cpu % 60),
        command,
    ])
}

/// The host's name for a number, as ps shows it.
fn user(uid: &str) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let text = "USER PID COMMAND\nroot 1 init of all\nroot 7 sleep 5 x\n";
        let found = chosen(text, &BTreeSet::from([7])).unwrap();
        assert_eq!(found.rows, [["root", "7", "sleep 5 x"]]);
        assert!(chosen("USER COMMAND\n", &BTreeSet::new()).is_err());
    }

    #[test]
    fn our_own_listing_has_every_column() {
        let found = own(&BTreeSet::from([std::process::id()]));
        assert_eq!(found.rows.len(), 1);
        assert_eq!(found.rows[0].len(), found.titles.len());
    }
}
