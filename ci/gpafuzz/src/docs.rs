//! The documentation, as it stands in the folder `docs` of this crate.

macro_rules! pages {
    ($($name:ident: $file:literal),* $(,)?) => { $(
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    )* };
}

pages! {
    tutorial: "tutorial.md",
    reference: "reference.md",
    program_format: "program-format.md",
    your_mmu: "your-mmu.md",
    kernel_developers: "kernel-developers.md",
    found_bugs: "found-bugs.md",
    ci: "ci.md",
    figures: "figures.md",
    architecture: "architecture.md",
}
