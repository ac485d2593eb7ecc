//! Making programs: near the edges where aliasing bugs live, with some kinds of op left out of each program.

mod dirty;
mod expected_state;
mod generator;
mod guest_tables;
mod mutate;
mod ops;
mod pages;
mod places;
mod profile;
mod slots;
mod vms;
mod whole;

pub use generator::Generator;
pub use mutate::readdress;
pub use profile::Profile;
