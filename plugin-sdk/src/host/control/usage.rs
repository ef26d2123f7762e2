//! What a process has used of the machine, from `/proc`.

use std::time::Duration;

/// What is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_time: Option<Duration>,
    pub(super) resident_bytes: Option<u64>,
}

/// Fields of `/proc/PID/stat`, counted from the one after the name in parentheses.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const RESIDENT_PAGES: usize = 21;

impl Usage {
    /// Of a process that may end at any moment; then nothing is known.
    pub(super) fn of(pid: u32) -> Self {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(Self::default(), |stat| Self::parse(&stat))
    }

    fn parse(stat: &str) -> Self {
        // A program may put any character into its name, so the last parenthesis is the one that ends it.
        let Some((_, fields)) = stat.rsplit_once(')') else { return Self::default() };
        let field = |index| fields.split_whitespace().nth(index)?.parse::<u64>().ok();
        let ticks =
            field(USER_TIME).zip(field(SYSTEM_TIME)).map(|(user, system)| user.saturating_add(system));
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let page = rustix::param::page_size() as u64;
        Self {
            cpu_time: ticks.map(|ticks| Duration::from_millis(ticks.saturating_mul(1_000) / per_second)),
            resident_bytes: field(RESIDENT_PAGES).map(|pages| pages.saturating_mul(page)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read_and_one_that_is_gone_is_not() {
        let stat = "7 (a) b ( R) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 9 1000000 512 18446744073709551615 1";
        let usage = Usage::parse(stat);
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(usage.cpu_time, Some(Duration::from_millis(300_000 / per_second)));
        assert_eq!(usage.resident_bytes, Some(512 * rustix::param::page_size() as u64));
        assert!(Usage::of(std::process::id()).resident_bytes > Some(0));
        assert_eq!(Usage::of(u32::MAX), Usage::default());
        assert_eq!(Usage::parse("rubbish"), Usage::default());
    }
}
