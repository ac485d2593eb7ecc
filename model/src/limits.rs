//! Every bound of a program, in one place: what comes from a stranger's file is checked against these.

/// Guest frames a program can name: one window of gfns at equal distances, so that a set of frames is one machine word.
pub const FRAMES: usize = 64;
/// Host pages a program can name, numbered from 0, at the same distances as its frames.
pub const HOST_PAGES: usize = 64;
/// The largest distance between neighbouring frames: 128 MiB, so that eight frames lie in each 1 GiB.
pub const STRIDE: u64 = 1 << 15;
/// Operations in one program.
pub const OPS: usize = 256;
/// vCPUs of one VM.
pub const VCPUS: usize = 4;
/// Memslots user space may create; the model's `KVM_USER_MEM_SLOTS`.
pub const USER_SLOTS: usize = 8;
/// Memslots only the hypervisor may create: TSS, APIC access page and identity map in KVM.
pub const INTERNAL_SLOTS: usize = 3;
/// All memslots: ids at and above [`USER_SLOTS`] are private.
pub const SLOTS: usize = USER_SLOTS + INTERNAL_SLOTS;
/// Bits stolen from the GPA of one VM.
pub const STOLEN_BITS: usize = 3;
/// Names of one frame: one for each subset of the stolen bits.
pub const ALIASES: usize = 1 << STOLEN_BITS;
/// Entries at the start of a page that a guest can use as a page table; a power of two.
pub const GPTES: usize = 4;
/// The most levels of a guest's page tables.
pub const GUEST_LEVELS: usize = 5;
/// MMU-notifier invalidations that may be in progress at once.
pub const NOTIFIER_WINDOWS: usize = 2;
/// First gfn that is above every window: 16 GiB. Where a runner has its own guest's memory below that, it plays no window there.
pub const TOP_GFN: u64 = 1 << 22;
/// Fewest bits of a guest physical address; all gfns lie below (x86 processors with second-stage tables have 36 or more).
pub const MAXPHYADDR_MIN: u8 = 36;
/// Most bits of a guest physical address (SDM vol. 3A, 4.1.4).
pub const MAXPHYADDR_MAX: u8 = 52;
/// Fewest shadow pages that a VM can be held to: a path through five levels, and one more.
pub const MMU_PAGES_MIN: u8 = 6;
/// Fewest entries of a vCPU's dirty ring.
pub const DIRTY_RING_MIN: u8 = 4;
/// Most entries of a vCPU's dirty ring.
pub const DIRTY_RING: u8 = 64;
/// Entries that one access may add to it: a page is listed when it becomes writable, and when the processor logs the write.
pub const DIRTY_RING_RESERVED: u8 = 2;
/// Pages that a vCPU may wait for at once while they are read in; 64 in Linux (`ASYNC_PF_PER_VCPU`).
pub const ASYNC_PF: usize = 4;
/// Bytes of a program or trace file that a parser will look at.
pub const FILE_BYTES: usize = 1 << 20;
/// Comment lines kept at the head of a program.
pub const COMMENT_LINES: usize = 64;
/// Frames of a scope that is explored exhaustively.
pub const SCOPE_FRAMES: usize = 8;
/// Memslots of such a scope.
pub const SCOPE_SLOTS: usize = 4;
/// Ops of its longest programs.
pub const SCOPE_OPS: usize = 12;
