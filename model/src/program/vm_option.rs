//! The options of a VM that most VMs leave as they are: for each its word, its values, and what a report says of it.

use super::{Aliasing, GuestPaging, Levels, Logging, VmConfig, VmError};
use crate::limits::MAXPHYADDR_MAX;

/// A VM with one option changed.
type Changed = Result<VmConfig, VmError>;

/// What an option can be set to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// A number up to `most`, the largest that is read. Which of them are legal is [`VmConfig`]'s to say.
    Number { most: u64, get: fn(&VmConfig) -> u64, set: fn(VmConfig, u64) -> Changed },
    /// `on` or `off`.
    Switch { get: fn(&VmConfig) -> bool, set: fn(VmConfig, bool) -> VmConfig },
    /// One of the words that `all` lists.
    Words {
        all: fn() -> Vec<&'static str>,
        get: fn(&VmConfig) -> &'static str,
        set: fn(VmConfig, &str) -> Option<Changed>,
    },
}

const ON_OFF: [&str; 2] = ["off", "on"];

/// An option of the `vm` line.
#[derive(Clone, Copy, Debug)]
pub struct VmOption {
    /// Its word, which `=` and the value follow.
    pub key: &'static str,
    pub(crate) values: Values,
    usual: fn(VmConfig) -> Changed,
    shown: fn(&VmConfig) -> String,
}

impl VmOption {
    /// Every option, in the order of the `vm` line.
    pub const ALL: [VmOption; 10] = {
        let [levels, maxphyaddr, logging, paging, nx_huge_pages, slot_zap_all, dirty_ring, async_pf, aliasing] =
            Self::AFTER_STRIDE;
        [Self::STRIDE, levels, maxphyaddr, logging, paging, nx_huge_pages, slot_zap_all, dirty_ring, async_pf, aliasing]
    };

    /// The pages from one frame to the next. It comes before the stolen bits are looked at, which it limits.
    pub(crate) const STRIDE: VmOption = VmOption {
        key: "stride",
        values: Values::Number {
            most: u32::MAX as u64,
            get: VmConfig::stride,
            set: |vm, stride| vm.with_frames(vm.base(), stride),
        },
        usual: |vm| vm.with_frames(vm.base(), 1),
        shown: |vm| format!("frames {} pages apart", vm.stride()),
    };

    pub(crate) const AFTER_STRIDE: [VmOption; 9] = [
        VmOption {
            key: "levels",
            values: Values::Words {
                all: || Levels::ALL.map(Levels::name).into(),
                get: |vm| vm.levels().name(),
                set: |vm, word| named(Levels::ALL, Levels::name, word).map(|levels| vm.with_levels(levels)),
            },
            usual: |vm| vm.with_levels(Levels::Four),
            shown: |_| "tables of five levels".into(),
        },
        VmOption {
            key: "maxphyaddr",
            values: Values::Number {
                most: u8::MAX as u64,
                get: |vm| vm.maxphyaddr().into(),
                set: |vm, bits| vm.with_maxphyaddr(bits as u8),
            },
            usual: |vm| vm.with_maxphyaddr(MAXPHYADDR_MAX),
            shown: |vm| format!("MAXPHYADDR {}", vm.maxphyaddr()),
        },
        VmOption {
            key: "log",
            values: Values::Words {
                all: || Logging::ALL.map(Logging::name).into(),
                get: |vm| vm.logging().name(),
                set: |vm, word| named(Logging::ALL, Logging::name, word).map(|logging| Ok(vm.with_logging(logging))),
            },
            usual: |vm| Ok(vm.with_logging(Logging::WriteProtect)),
            shown: |_| "writes logged by PML".into(),
        },
        VmOption {
            key: "paging",
            values: Values::Words {
                all: || GuestPaging::ALL.map(GuestPaging::name).into(),
                get: |vm| vm.paging().name(),
                set: |vm, word| {
                    named(GuestPaging::ALL, GuestPaging::name, word).map(|paging| Ok(vm.with_paging(paging)))
                },
            },
            usual: |vm| Ok(vm.with_paging(GuestPaging::default())),
            shown: |vm| format!("guest paging {}", vm.paging().name()),
        },
        VmOption {
            key: "nx-huge-pages",
            values: Values::Switch { get: VmConfig::nx_huge_pages, set: VmConfig::with_nx_huge_pages },
            usual: |vm| Ok(vm.with_nx_huge_pages(false)),
            shown: |_| "large pages are not executable".into(),
        },
        VmOption {
            key: "slot-zap-all",
            values: Values::Switch { get: VmConfig::slot_zap_all, set: VmConfig::with_slot_zap_all },
            usual: |vm| Ok(vm.with_slot_zap_all(false)),
            shown: |_| "everything goes with a memslot".into(),
        },
        VmOption {
            key: "dirty-ring",
            values: Values::Number {
                most: u8::MAX as u64,
                get: |vm| vm.dirty_ring().unwrap_or(0).into(),
                set: |vm, entries| vm.with_dirty_ring(entries as u8),
            },
            usual: |vm| Ok(vm.without_dirty_ring()),
            shown: |vm| format!("dirty rings of {} entries", vm.dirty_ring().unwrap_or(0)),
        },
        VmOption {
            key: "async-pf",
            values: Values::Switch { get: VmConfig::async_pf, set: VmConfig::with_async_pf },
            usual: |vm| Ok(vm.with_async_pf(false)),
            shown: |_| "async page faults".into(),
        },
        VmOption {
            key: "aliasing",
            values: Values::Words {
                all: || Aliasing::ALL.map(Aliasing::name).into(),
                get: |vm| vm.aliasing().name(),
                set: |vm, word| named(Aliasing::ALL, Aliasing::name, word).map(|aliasing| vm.with_aliasing(aliasing)),
            },
            usual: |vm| vm.with_aliasing(Aliasing::SamePage),
            shown: |_| "the stolen bit is the shared bit".into(),
        },
    ];

    /// `vm` with this option as in most VMs.
    ///
    /// # Errors
    /// A [`VmError`] if that is no legal VM.
    pub fn usual(&self, vm: VmConfig) -> Changed {
        (self.usual)(vm)
    }

    /// Whether this option of `vm` is as in most VMs. Such an option is not printed.
    pub fn is_usual(&self, vm: &VmConfig) -> bool {
        self.usual(*vm).as_ref() == Ok(vm)
    }

    /// The value of this option in `vm`, as the `vm` line has it.
    pub fn value(&self, vm: &VmConfig) -> String {
        match self.values {
            Values::Number { get, .. } => get(vm).to_string(),
            Values::Switch { get, .. } => ON_OFF[usize::from(get(vm))].into(),
            Values::Words { get, .. } => get(vm).into(),
        }
    }

    /// `vm` with this option set to `word`; none if that is no word of it.
    pub(crate) fn set(&self, vm: VmConfig, word: &str) -> Option<Changed> {
        match self.values {
            Values::Number { .. } => None,
            Values::Switch { set, .. } => ON_OFF.iter().position(|name| *name == word).map(|at| Ok(set(vm, at == 1))),
            Values::Words { set, .. } => set(vm, word),
        }
    }

    /// What a report says of `vm` where this option is not as usual.
    pub fn shown(&self, vm: &VmConfig) -> String {
        (self.shown)(vm)
    }

    /// What the parser accepts, where the values are words.
    pub(crate) fn expected(&self) -> String {
        let words = match self.values {
            Values::Number { .. } => Vec::new(),
            Values::Switch { .. } => vec!["on", "off"],
            Values::Words { all, .. } => all(),
        };
        let words: Vec<String> = words.iter().map(|word| format!("{}={word}", self.key)).collect();
        words.split_last().map_or_else(String::new, |(last, words)| format!("{} or {last}", words.join(", ")))
    }
}

/// The one of `all` whose name is `word`.
fn named<T: Copy, const N: usize>(all: [T; N], name: fn(T) -> &'static str, word: &str) -> Option<T> {
    all.into_iter().find(|value| name(*value) == word)
}
