//! Arguments that several commands take.

use crate::AliasMethod;

/// Parses the name of an alias method.
pub(super) fn alias_method(name: &str) -> Result<AliasMethod, String> {
    let known = || AliasMethod::ALL.map(AliasMethod::name).join(", ");
    AliasMethod::named(name).ok_or_else(|| format!("expected one of {}", known()))
}
