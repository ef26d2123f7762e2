//! Application protocol versions: single ones, sets, and which of them two sides agree on.

use std::collections::BTreeSet;
use std::fmt;

/// Version of an application's own contract, such as that of a cache service. Both sides may know several.
///
/// Not to be confused with the core protocol version, go-plugin's own, which is always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppVersion(pub u32);

impl AppVersion {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl From<u32> for AppVersion {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<AppVersion> for u32 {
    fn from(version: AppVersion) -> Self {
        version.0
    }
}

impl PartialEq<u32> for AppVersion {
    fn eq(&self, number: &u32) -> bool {
        self.0 == *number
    }
}

impl fmt::Display for AppVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that one side knows, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppVersions(BTreeSet<AppVersion>);

impl AppVersions {
    /// Whether `version` is one of them.
    #[must_use]
    pub fn contains(&self, version: AppVersion) -> bool {
        self.0.contains(&version)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the lowest to the highest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = AppVersion> + '_ {
        self.0.iter().copied()
    }

    /// Reads `PLUGIN_PROTOCOL_VERSIONS`: decimal numbers, comma separated, in any order. What is not a number is
    /// given back beside the set, since go-plugin reports such entries and goes on.
    #[must_use]
    pub fn parse_list(list: &str) -> (Self, Vec<String>) {
        let mut junk = Vec::new();
        let mut versions = BTreeSet::new();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse() {
                Ok(number) => _ = versions.insert(AppVersion(number)),
                Err(_) => junk.push(entry.to_owned()),
            }
        }
        (Self(versions), junk)
    }

    /// The version a plugin that knows these serves to a host that offers `offered`: the highest common one, or,
    /// where there is none, its own lowest, which the host then refuses or which is what a host from before
    /// version lists expects. `None` only if the plugin knows no version at all.
    #[must_use]
    pub fn negotiate(&self, offered: &Self) -> Option<AppVersion> {
        self.0.intersection(&offered.0).last().or_else(|| self.0.first()).copied()
    }
}

/// From the lowest to the highest.
impl<'a> IntoIterator for &'a AppVersions {
    type Item = AppVersion;
    type IntoIter = std::iter::Copied<std::collections::btree_set::Iter<'a, AppVersion>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().copied()
    }
}

impl<V: Into<AppVersion>> FromIterator<V> for AppVersions {
    fn from_iter<I: IntoIterator<Item = V>>(versions: I) -> Self {
        Self(versions.into_iter().map(Into::into).collect())
    }
}

/// Comma separated, as in `PLUGIN_PROTOCOL_VERSIONS`.
impl fmt::Display for AppVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, version) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            version.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins_and_the_lowest_serves_everybody_else() {
        for (own, offered, chosen) in [
            (&[1, 2, 3][..], "2,1", Some(2)),
            (&[1, 2, 3], "1,2", Some(2)),
            (&[1, 2, 3], "7", Some(1)),
            (&[2, 3], "", Some(2)),
            (&[5], "x,5,,6", Some(5)),
            (&[], "1", None),
        ] {
            let own: AppVersions = own.iter().copied().collect();
            let (offered, _) = AppVersions::parse_list(offered);
            assert_eq!(own.negotiate(&offered), chosen.map(AppVersion), "{own} against {offered}");
        }
    }

    #[test]
    fn versions_are_numbers_where_numbers_are_wanted() {
        let versions: AppVersions = [3, 1].into_iter().collect();
        let numbers: Vec<u32> = (&versions).into_iter().map(u32::from).collect();
        assert_eq!(numbers, [1, 3]);
        assert!(AppVersion(3) == 3 && AppVersion(3) != 1);
    }

    #[test]
    fn junk_in_a_list_is_reported_and_skipped() {
        let (versions, junk) = AppVersions::parse_list("3, one,1,-2,99999999999");
        assert_eq!(versions.to_string(), "1,3");
        assert_eq!(junk, ["one", "-2", "99999999999"]);
    }
}
