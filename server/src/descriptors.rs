//! File descriptors: each connection takes one, and some must be left for the plugin and for everything else.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors kept for what is no connection of a client. About 20 are in use: the standard ones, the run time's,
/// the listener, a plugin's pipes and socket, and for a moment those of the plugin that follows it.
pub const RESERVE: usize = 64;

/// Raises this process's limit on open files as far as `wanted` connections need it and the hard limit lets it, and
/// says how many connections fit; warns if that is fewer.
///
/// No further than needed, since plugins inherit the limit, and some programs go through all numbers below it.
pub fn make_room(wanted: NonZeroUsize) -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile);
    let raised = raised(&limit, wanted);
    if raised.current != limit.current
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(%error, "cannot raise the limit on open files");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let fit = fit(limit, wanted);
    if fit < wanted {
        warn!(
            open_files = limit,
            wanted,
            connections = fit,
            "the limit on open files allows fewer connections"
        );
    }
    fit
}

/// The limit that `wanted` connections need, or as near to it as the hard limit is. Never lower than it was.
fn raised(limit: &Rlimit, wanted: NonZeroUsize) -> Rlimit {
    let needed = wanted.get().saturating_add(RESERVE) as u64;
    let allowed = limit.maximum.map_or(needed, |maximum| needed.min(maximum));
    Rlimit { current: limit.current.map(|current| current.max(allowed)), maximum: limit.maximum }
}

/// How many of `wanted` connections `limit` leaves room for; always one, so that the server answers at all. `None`
/// is no limit.
fn fit(limit: Option<u64>, wanted: NonZeroUsize) -> NonZeroUsize {
    let Some(limit) = limit else { return wanted };
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE);
    NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        for (current, maximum, wanted, expected) in [
            (Some(1024), Some(20_000), 10_000, Some(10_064)),
            (Some(1024), Some(4096), 10_000, Some(4096)),
            (Some(1024), None, 10_000, Some(10_064)),
            (Some(20_000), Some(20_000), 10, Some(20_000)),
            (Some(128), Some(128), 10_000, Some(128)),
            (None, None, 10_000, None),
        ] {
            let raised = raised(&Rlimit { current, maximum }, count(wanted));
            assert_eq!(
                (raised.current, raised.maximum),
                (expected, maximum),
                "{current:?} {maximum:?} {wanted}"
            );
        }
    }

    #[test]
    fn the_reserve_is_never_given_to_connections() {
        for (limit, wanted, expected) in [
            (Some(10_064), 10_000, 10_000),
            (Some(10_063), 10_000, 9_999),
            (Some(128), 10_000, 64),
            (Some(64), 10_000, 1),
            (Some(3), 10_000, 1),
            (Some(u64::MAX), 10_000, 10_000),
            (None, usize::MAX, usize::MAX),
        ] {
            assert_eq!(fit(limit, count(wanted)), count(expected), "{limit:?} {wanted}");
        }
    }
}
