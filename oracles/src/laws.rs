//! The laws, one a file.

mod alias_flush;
mod dirty_log;
mod gfn_unalias;
mod large_leaf;
mod private_slot;
mod progress;
mod soundness;
mod structure;

pub use alias_flush::AliasFlush;
pub use dirty_log::DirtyLog;
pub use gfn_unalias::GfnUnalias;
pub use large_leaf::LargeLeaf;
pub use private_slot::PrivateSlot;
pub use progress::Progress;
pub use structure::Structure;

use crate::observe::Oracle;

/// Every oracle, in the order in which they are asked.
pub fn all() -> Vec<Box<dyn Oracle + Send>> {
    vec![
        Box::new(Progress),
        Box::new(PrivateSlot),
        Box::new(AliasFlush::default()),
        Box::new(GfnUnalias::default()),
        Box::new(LargeLeaf),
        Box::new(DirtyLog),
        Box::new(Structure::default()),
    ]
}

/// The oracle called `name`, alone, so that no other objects first; none if there is no such oracle.
pub fn only(name: &str) -> Vec<Box<dyn Oracle + Send>> {
    all().into_iter().filter(|oracle| oracle.name() == name).collect()
}
