//! The host's side of memory: which page stands behind each hva, how large a mapping it is part of, which hvas are being
//! invalidated, and who holds a page.

use crate::addr::{HostPage, Level, Pfn};
use crate::frame_set::FrameSet;
use crate::limits::{FRAMES, GPTES, HOST_PAGES, NOTIFIER_WINDOWS};
use crate::program::{Gpte, HostPageRange, Op, Reclaim, VmConfig};
mod pins;

pub use pins::Pins;

use std::hash::{Hash, Hasher};

/// Host page tables, reduced to what a guest can tell apart: the page behind each hva. Pages lie as far apart as the frames of
/// the VM, each with a block of physical pages behind its block of hvas.
///
/// A page that is unmapped is never seen again: whoever touches its hva next finds a new page, with a new [`Pfn`], full of
/// zeros. At first the host maps everything as large as alignment lets it. What is unmapped comes back in small pages, and takes
/// the huge page that it was part of apart; `collapse` copies small pages to huge ones (as khugepaged does). What is paged out
/// comes back as another page, too, but holds what it held. Pages that nobody can have are as good as unmapped, until an op puts
/// others there. Of what pages hold, the guest's page tables alone make a difference to anybody, and so only these are kept.
#[derive(Clone, Debug)]
pub struct Host {
    /// Pages from one block to the next, as a shift.
    stride_shift: u32,
    pfns: [Pfn; HOST_PAGES],
    levels: [Level; HOST_PAGES],
    /// The pages of a guest_memfd, one beside each hva, in a VM with a shared bit.
    private: Option<[Pfn; HOST_PAGES]>,
    /// The next physical page that was never used.
    next: u64,
    windows: [Option<HostPageRange>; NOTIFIER_WINDOWS],
    /// Pages that have to be read in before anybody can use them, one bit each.
    out: u64,
    /// Pages that nobody can have.
    gone: u64,
    pins: Pins,
    changed: Option<HostPageRange>,
    gptes: [[Gpte; GPTES]; HOST_PAGES],
    /// Pages that hold other entries than zeros, so that only these have to be cleared.
    written: u64,
    overwritten: Vec<(HostPage, u8, Gpte)>,
}

impl Default for Host {
    /// The host of a VM whose stride is 1.
    fn default() -> Self {
        Self::new(&VmConfig::default())
    }
}

const _: () = assert!(HOST_PAGES <= u64::BITS as usize);

impl Host {
    /// The host of `vm`, before its first op.
    pub fn new(vm: &VmConfig) -> Self {
        let mut host = Self {
            stride_shift: 0,
            pfns: [Pfn::new(0); HOST_PAGES],
            levels: [Level::default(); HOST_PAGES],
            private: None,
            next: 0,
            windows: [None; NOTIFIER_WINDOWS],
            out: 0,
            gone: 0,
            pins: Pins::default(),
            changed: None,
            gptes: [[Gpte::default(); GPTES]; HOST_PAGES],
            written: 0,
            overwritten: Vec::new(),
        };
        host.reset(vm);
        host
    }

    /// Become `Self::new(vm)`.
    pub fn reset(&mut self, vm: &VmConfig) {
        let (stride, level) = (vm.stride(), vm.largest_leaf());
        // Page 0 stays unused; where there are huge pages, so does all of the first.
        let first = level.pages().max(stride);
        self.stride_shift = stride.trailing_zeros();
        self.pfns = std::array::from_fn(|index| Pfn::new((first + index as u64 * stride) as u32));
        self.levels = [level; HOST_PAGES];
        self.next = first + HOST_PAGES as u64 * stride;
        self.private = vm.shared_private().then(|| std::array::from_fn(|_| Self::take(&mut self.next, stride)));
        self.windows = [None; NOTIFIER_WINDOWS];
        self.out = 0;
        self.gone = 0;
        self.pins.clear();
        self.changed = None;
        self.overwritten.clear();
        let mut written = std::mem::take(&mut self.written);
        while written != 0 {
            self.gptes[written.trailing_zeros() as usize] = Default::default();
            written &= written - 1;
        }
    }

    /// Take in what tells this state from others. Host pages have no names: two that were never the same are alike.
    pub(crate) fn hash_state(&self, hasher: &mut impl Hasher) {
        let Self {
            stride_shift: _,
            pfns: _,
            levels,
            private: _,
            next: _,
            windows,
            out,
            gone,
            pins: _,
            changed: _,
            gptes,
            written,
            overwritten: _,
        } = self;
        (levels, windows, out, gone, written).hash(hasher);
        if *written != 0 {
            gptes.hash(hasher);
        }
    }

    fn index(&self, hva: HostPage) -> usize {
        (hva.page() >> self.stride_shift) as usize
    }

    const fn hva(&self, index: usize) -> HostPage {
        HostPage::new((index as u64) << self.stride_shift)
    }

    /// The page behind `hva` (`hva_to_pfn()`). While `hva` is being invalidated this is still the old page, which must
    /// not be mapped any more. Whoever can carry out [`Op::ProtNone`] asks [`Host::is_gone`] first.
    ///
    /// # Panics
    /// If `hva` lies above the [`HOST_PAGES`] blocks of the host; programs cannot name such a page.
    pub fn pfn(&self, hva: HostPage) -> Pfn {
        let index = self.index(hva);
        self.pfns[index].add(hva.page() - self.hva(index).page())
    }

    /// The private page beside `hva`, in a VM whose stolen bit is the shared bit (`kvm_gmem_get_pfn()`). It is the page of a
    /// guest_memfd, whose offsets are the hvas of its memslots. It changes only when a hole is punched.
    ///
    /// # Panics
    /// As [`Host::pfn`], or if the VM has no private memory.
    pub fn private_pfn(&self, hva: HostPage) -> Pfn {
        let index = self.index(hva);
        let private = self.private.as_ref().expect("only a VM with a shared bit has private pages");
        private[index].add(hva.page() - self.hva(index).page())
    }

    /// How large a host mapping `hva` is part of (`host_pfn_mapping_level()`). What is being invalidated has been taken apart.
    ///
    /// # Panics
    /// As [`Host::pfn`].
    pub fn level(&self, hva: HostPage) -> Level {
        let mut level = self.levels[self.index(hva)];
        let split = |level: Level| {
            let block = HostPageRange { start: hva.align_down(level.pages()), pages: level.pages() as u32 };
            self.windows.iter().flatten().any(|window| window.overlaps(&block))
        };
        while level != Level::Page4K && split(level) {
            level = level.smaller();
        }
        level
    }

    /// Whether whoever needs the page behind `hva` has to wait until it was read in. [`Host::pfn`] says which page that will be.
    ///
    /// # Panics
    /// As [`Host::pfn`].
    pub fn is_out(&self, hva: HostPage) -> bool {
        self.out != 0 && self.out >> self.index(hva) & 1 != 0
    }

    /// Whether nobody can have the page behind `hva`. [`Host::pfn`] says which page would be there.
    ///
    /// # Panics
    /// As [`Host::pfn`].
    pub fn is_gone(&self, hva: HostPage) -> bool {
        self.gone != 0 && self.gone >> self.index(hva) & 1 != 0
    }

    /// The references to its pages. Whoever takes some has to be seen to give them back.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether an invalidation of `hva` has begun and not ended.
    pub fn invalidating(&self, hva: HostPage) -> bool {
        self.windows.iter().flatten().any(|range| range.contains(hva))
    }

    /// Whether any invalidation is in progress.
    pub fn any_invalidating(&self) -> bool {
        self.windows.iter().any(Option::is_some)
    }

    /// The hvas being invalidated in window `window`.
    pub fn window(&self, window: u8) -> Option<HostPageRange> {
        self.windows[usize::from(window)]
    }

    /// The hvas whose page, or whose invalidation, the op applied last has changed.
    pub fn changed(&self) -> Option<HostPageRange> {
        self.changed
    }

    /// The entry with number `index` of the guest page table that the page behind `hva` is, or would be.
    ///
    /// # Panics
    /// As [`Host::pfn`], or if `index` is [`GPTES`] or above; programs cannot name such an entry.
    #[inline]
    pub fn gpte(&self, hva: HostPage, index: u8) -> Gpte {
        self.gptes[self.index(hva)][usize::from(index)]
    }

    /// The entries of guest page tables that the last op has overwritten: the page they were in, their number, what they were.
    pub fn overwritten(&self) -> &[(HostPage, u8, Gpte)] {
        &self.overwritten
    }

    /// The guest reached `pfn`, which has therefore been read in, and `written` there: an entry of a guest page table, and its index.
    pub(crate) fn reached(&mut self, pfn: Pfn, written: Option<(u8, Gpte)>) {
        if self.out == 0 && written.is_none() {
            return;
        }
        let Some(page) = self.pfns.iter().position(|at| *at == pfn) else { return };
        self.out &= !(1 << page);
        if let Some((index, gpte)) = written {
            let old = std::mem::replace(&mut self.gptes[page][usize::from(index)], gpte);
            self.overwritten.push((self.hva(page), index, old));
            self.written |= 1 << page;
        }
    }

    /// Carry out the host's part of an accepted op, before the target and the model see it.
    pub fn apply(&mut self, op: &Op) {
        self.overwritten.clear();
        self.pins.begin_op();
        self.changed = match *op {
            Op::Unmap { range, by: Some(Reclaim::PunchHole) } if self.private.is_some() => {
                self.punch_hole(range);
                Some(range)
            }
            Op::Unmap { range, .. } => {
                self.replace(range, Level::Page4K);
                self.clear(range);
                Some(range)
            }
            Op::Collapse { range } => {
                self.replace(range, Level::Page1G);
                Some(range)
            }
            Op::PageOut { range } => {
                self.replace(range, Level::Page4K);
                self.out |= self.pages(range);
                Some(range)
            }
            Op::ProtNone { range } => {
                self.replace(range, Level::Page4K);
                self.clear(range);
                self.gone |= self.pages(range);
                Some(range)
            }
            Op::PageIn { range } => {
                self.out &= !self.pages(range);
                None
            }
            Op::UnmapBegin { window, range } => {
                self.windows[usize::from(window)] = Some(range);
                Some(range)
            }
            Op::UnmapEnd { window } => {
                let range = self.windows[usize::from(window)].take();
                if let Some(range) = range {
                    self.replace(range, Level::Page4K);
                    self.clear(range);
                }
                range
            }
            _ => None,
        };
    }

    /// Put new private pages beside `range` (`kvm_gmem_punch_hole()`). The pages behind the hvas stay.
    fn punch_hole(&mut self, range: HostPageRange) {
        let (start, end) = (self.index(range.start), self.index(HostPage::new(range.end())));
        for page in self.private.iter_mut().flat_map(|pages| &mut pages[start..end]) {
            *page = Self::take(&mut self.next, 1 << self.stride_shift);
        }
    }

    /// A page that was never used, of a block of `stride`.
    const fn take(next: &mut u64, stride: u64) -> Pfn {
        let page = Pfn::new(*next as u32);
        *next += stride;
        page
    }

    /// One bit for each page of `range`.
    fn pages(&self, range: HostPageRange) -> u64 {
        let (start, end) = (self.index(range.start), self.index(HostPage::new(range.end())));
        FrameSet::range(start, end - start).bits()
    }

    /// New pages behind `range` are full of zeros.
    fn clear(&mut self, range: HostPageRange) {
        for index in self.index(range.start)..self.index(HostPage::new(range.end())) {
            let (hva, lost) = (self.hva(index), std::mem::take(&mut self.gptes[index]));
            let lost = (0..).zip(lost).filter(|(_, gpte)| *gpte != Gpte::default());
            self.overwritten.extend(lost.map(|(at, gpte)| (hva, at, gpte)));
        }
    }

    /// Put new pages behind `range`, as large as `most` and its ends allow.
    fn replace(&mut self, range: HostPageRange, most: Level) {
        let pages = self.pages(range);
        self.out &= !pages;
        self.gone &= !pages;
        for index in self.index(range.start)..self.index(HostPage::new(range.end())) {
            let hva = self.hva(index);
            let fits = |level: &Level| {
                let block = HostPageRange { start: hva.align_down(level.pages()), pages: level.pages() as u32 };
                *level <= most && range.covers(&block)
            };
            let level = Level::LARGE.into_iter().find(fits).unwrap_or_default();
            // A new huge page begins at its own alignment, and its other blocks follow one another.
            if hva.align_down(level.pages()) == hva {
                self.next = self.next.next_multiple_of(level.pages());
            }
            self.pfns[index] = Pfn::new(self.next as u32);
            self.levels[index] = level;
            self.next += 1 << self.stride_shift;
        }
        self.split_around(range);
    }

    /// Take apart the huge pages that lost some of their pages with `range`.
    fn split_around(&mut self, range: HostPageRange) {
        for large in Level::LARGE {
            for index in 0..HOST_PAGES {
                let block =
                    HostPageRange { start: self.hva(index).align_down(large.pages()), pages: large.pages() as u32 };
                if self.levels[index] == large && range.overlaps(&block) && !range.covers(&block) {
                    self.levels[index] = large.smaller();
                }
            }
        }
    }
}

const _: () = assert!(FRAMES == HOST_PAGES, "the largest leaf of the window is the largest of the host, too");
