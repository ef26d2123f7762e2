//! Processes seen from outside, through `/proc`.

use std::fs;
use std::time::Duration;

/// A process and all that it has started, at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree(Vec<u32>);

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        let processes = all();
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            tree.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        Self(tree)
    }

    /// This process without what it has started.
    pub(crate) fn own() -> Self {
        Self(vec![std::process::id()])
    }

    /// All but the first.
    pub(crate) fn descendants(&self) -> &[u32] {
        &self.0[1..]
    }

    /// Processor time used since it was `before`. What has ended meanwhile has taken its time along.
    pub(crate) fn cpu_since(&self, before: Duration) -> Duration {
        self.cpu().saturating_sub(before)
    }

    /// Processor time used so far, in user and in kernel mode.
    pub(crate) fn cpu(&self) -> Duration {
        let used = |pid: &u32| stat(*pid, USER).unwrap_or(0) + stat(*pid, SYSTEM).unwrap_or(0);
        ticks(self.0.iter().map(used).sum())
    }

    /// Memory of each that is resident, the first one's first. What several share is counted for each.
    pub(crate) fn resident_bytes(&self) -> Vec<u64> {
        self.0.iter().map(|pid| resident(*pid).unwrap_or(0)).collect()
    }
}

/// What all processors have done since the start of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    busy: u64,
    stolen: u64,
    total: u64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::parse(text.lines().next().unwrap_or_default())
    }

    /// Reads `cpu  user nice system idle iowait irq softirq steal ...`.
    fn parse(line: &str) -> Self {
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
        let of = |range: std::ops::Range<usize>| fields.get(range).unwrap_or_default().iter().sum::<u64>();
        // The guest's fields that follow are part of user and nice.
        Self { busy: of(0..3) + of(5..7), stolen: of(7..8), total: of(0..8) }
    }

    /// The share of all processors' time since `before` that went to anything but the processes which used `ours`:
    /// to other processes or to other machines on the same host.
    pub(crate) fn taken_by_others(self, before: Self, ours: Duration) -> f64 {
        // Some of the counters may go down by a little, as Linux says of the time spent waiting for disks.
        let total = ticks(self.total.saturating_sub(before.total)).as_secs_f64();
        let busy = ticks(self.busy.saturating_sub(before.busy)).saturating_sub(ours);
        let stolen = ticks(self.stolen.saturating_sub(before.stolen));
        if total > 0.0 { (busy + stolen).as_secs_f64() / total } else { 0.0 }
    }
}

/// Fields of `/proc/PID/stat`, counted from the one after the name in parentheses.
const PARENT: usize = 1;
const USER: usize = 11;
const SYSTEM: usize = 12;

/// Linux shows times to programs in ticks of 10 ms, whatever its own clock does.
fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(10 * ticks)
}

fn stat(pid: u32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program may put any character into its name, so the last parenthesis is the one that ends it.
    text.rsplit_once(')')?.1.split_whitespace().nth(field)?.parse().ok()
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// All processes, each with its parent.
fn all() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, u32::try_from(stat(pid, PARENT)?).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_is_in_the_tree_of_its_parent() {
        let own = std::process::id();
        assert!(Tree::own().resident_bytes()[0] > 0);
        assert!(Tree::of(std::os::unix::process::parent_id()).descendants().contains(&own));
    }

    #[test]
    fn what_others_take_is_what_was_busy_or_stolen_and_not_ours() {
        let before = Machine::parse("cpu  100 0 100 1000 0 0 0 0 0 0");
        let after = Machine::parse("cpu  120 10 110 1050 0 5 5 10 0 0");
        // 110 ticks in all: 50 busy, of which 20 ours; 10 stolen.
        let share = after.taken_by_others(before, Duration::from_millis(200));
        assert!((share - 40.0 / 110.0).abs() < 1e-9, "{share}");
    }
}
