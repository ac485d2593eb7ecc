//! Whether a translation promises no more than the guest is entitled to.

use gpa_model::{Entitled, Spte};

/// Whether a translation promises no more than the guest is entitled to.
pub(crate) fn is_sound(spte: Spte, entitled: Entitled) -> bool {
    match entitled {
        Entitled::Memory(pfn, rights) => spte.pfn() == pfn && rights.contains(spte.rights()),
        Entitled::Hole | Entitled::InFlux | Entitled::NoPage | Entitled::OtherKind => false,
    }
}

/// The entitlement, for the second half of a sentence.
pub(crate) fn instead(entitled: Entitled) -> String {
    match entitled {
        Entitled::Hole => "there is no memory for the guest to find here".into(),
        Entitled::InFlux => "the memslot or page is being taken away and nothing may map it".into(),
        Entitled::OtherKind => "the gfn has memory of the other kind, private or shared".into(),
        Entitled::NoPage => "nobody can have the page, so nothing may map it".into(),
        Entitled::Memory(pfn, rights) => format!("the guest is entitled to {pfn} {rights}"),
    }
}
