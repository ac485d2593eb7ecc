//! Debian's packages: found in package lists, downloaded, checked by their signatures, unpacked; never installed.

mod lists;
mod packages;
mod version;

pub(crate) use packages::{FLAVOUR, fetch, fetch_kernel, fetch_of_newest_suite, newest_first, version_in};
use version::compare;
