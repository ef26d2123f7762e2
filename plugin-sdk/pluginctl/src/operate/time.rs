//! Times and sizes, as people and programs want to see them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// RFC 3339 with milliseconds; empty if it is not known.
pub(super) fn moment(at: Option<Timestamp>) -> String {
    instant(at).map(|at| humantime::format_rfc3339_millis(at).to_string()).unwrap_or_default()
}

pub(super) fn instant(at: Option<Timestamp>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

/// How long ago it was.
pub(super) fn ago(at: Option<Timestamp>) -> Option<Duration> {
    // A clock that was set back is no reason for anything but 0.
    instant(at).map(|at| SystemTime::now().duration_since(at).unwrap_or_default())
}

pub(super) fn span(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(duration).ok())
}

/// The two largest units: `5s`, `3m 12s`, `2h 5m`, `11d 3h`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `512 B`, `3.4 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_largest_units_are_shown() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (192, "3m 12s"),
            (3_600, "1h 0m"),
            (90_000, "1d 1h"),
            (86_399, "23h 59m"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), shown);
        }
        for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(moment(Some(SystemTime::UNIX_EPOCH.into())), "1970-01-01T00:00:00.000Z");
        assert_eq!(ago(Some((SystemTime::now() + Duration::from_secs(60)).into())), Some(Duration::ZERO));
    }
}
