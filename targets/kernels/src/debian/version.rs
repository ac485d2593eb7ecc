//! The order of versions.

use debversion::Version;
use std::cmp::Ordering;

/// Compare two versions, of packages or of what kernels call themselves, as Debian does (Debian Policy, "Version").
///
/// What kernels call themselves has `-rc` before the number of a candidate, which comes before the release itself, as `~rc` does in
/// Debian's versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let version = |text: &str| text.replace("-rc", "~rc").parse::<Version>();
    match (version(a), version(b)) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        // What is no version at all comes first.
        (a, b) => a.is_ok().cmp(&b.is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_debians_order() {
        let ascending = [
            "no version, at all",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.12.9+deb12-amd64",
            "6.12.90+deb12-amd64",
            "6.12.90+deb12.1-amd64",
            "6.12.117-1~bpo12+1",
            "6.12.117-1~deb12u1",
            "6.12.117-1",
            "7.3-rc7-amd64",
            "7.3~rc8-1~exp1",
            "7.3.0-rc1+",
            "7.3.0",
            "7.3.4+deb13-amd64",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }
}
