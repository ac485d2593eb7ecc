//! What a kernel objects to, or what became of it.

/// Something that makes the program a finding, whatever the oracles say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What kind.
    pub kind: AlarmKind,
    /// The kernel's function that it comes from; empty if none is known.
    pub function: String,
    /// What the kernel, or its surroundings, said, and a backtrace: one or more lines.
    pub text: String,
}

/// Kinds of [`Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlarmKind {
    /// A condition that should never be true (`WARN()`). The kernel goes on.
    Warn,
    /// The kernel has lost its way: `BUG()`, an exception, a call that nothing answers.
    Bug,
    /// A list, an object or memory beside it is not what it was.
    Corruption,
    /// Something outlived its VM.
    Leak,
    /// It went on for longer than any program takes, or waits for what cannot come.
    Hang,
    /// The worker is gone, and did not say why.
    Died,
    /// It wrote more than an answer can be.
    Flood,
    /// What it wrote is no answer.
    Garbled,
    /// The kernel did something that makes no sense: it refused what it must not, or said two things of one.
    Odd,
}

impl AlarmKind {
    /// All of them, in declaration order.
    pub const ALL: [AlarmKind; 9] = [
        Self::Warn,
        Self::Bug,
        Self::Corruption,
        Self::Leak,
        Self::Hang,
        Self::Died,
        Self::Flood,
        Self::Garbled,
        Self::Odd,
    ];

    /// The word for it in signatures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Bug => "bug",
            Self::Corruption => "corruption",
            Self::Leak => "leak",
            Self::Hang => "hang",
            Self::Died => "died",
            Self::Flood => "flood",
            Self::Garbled => "garbled",
            Self::Odd => "odd",
        }
    }

    /// Whether the worker can be asked again.
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Warn)
    }
}

impl Alarm {
    /// The clause of the signature: the kind, and the function if there is one.
    pub fn clause(&self) -> String {
        let kind = self.kind.name();
        if self.function.is_empty() { kind.to_owned() } else { format!("{kind}-{}", self.function) }
    }
}
