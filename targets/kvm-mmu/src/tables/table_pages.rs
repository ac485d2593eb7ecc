//! The table pages. Page walkers, vCPUs without a lock and the holder of the `mmu_lock` use them at the same time, so
//! every entry is an atomic. The purpose of each page is known under the lock only (`shadow_pages.rs`).

use crate::sync::{AtomicU64, Ordering, spin};
use crate::tables::roots::Root;
use crate::tables::spte::{ENTRIES, Entry, Format, index, pages_from};
use gpa_model::limits::{FRAMES, OPS};
use gpa_model::{Gpa, Levels, Spte, StolenMask};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64 as Counter, Ordering as CounterOrdering};

/// The place of an entry: table number, index, and the level of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sptep {
    pub(crate) table: u32,
    pub(crate) index: u16,
    pub(crate) level: u8,
}

impl Sptep {
    pub(crate) const fn new(table: u32, index: usize, level: u8) -> Self {
        Self { table, index: index as u16, level }
    }
}

/// The layout that hardware walks.
#[repr(align(4096))]
struct Entries([AtomicU64; ENTRIES]);

#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Entries>() == 4096 && align_of::<Entries>() == 4096);

/// The number of entries of a line. A table page has as many lines as a word has bits.
const LINE: usize = ENTRIES / u64::BITS as usize;

/// The entries, and one bit for each line that was written since all entries were absent. A search for present entries
/// skips the other lines. The bits are complete for the holder of the `mmu_lock`, who makes entries present.
struct TablePage {
    entries: Box<Entries>,
    written: AtomicU64,
}

impl TablePage {
    fn absent() -> Self {
        Self { entries: Box::new(Entries([const { AtomicU64::new(0) }; ENTRIES])), written: AtomicU64::new(0) }
    }

    /// The entry at `index`, for reading.
    fn entry(&self, index: usize) -> &AtomicU64 {
        &self.entries.0[index % ENTRIES]
    }

    /// The entry at `index`, for writing.
    fn entry_to_write(&self, index: usize) -> &AtomicU64 {
        let line = 1 << (index / LINE);
        if self.written.load(Ordering::Relaxed) & line == 0 {
            self.written.fetch_or(line, Ordering::Relaxed);
        }
        self.entry(index)
    }

    /// The indices of the entries in written lines, from the line of `first` on.
    fn indices(&self, first: usize) -> impl Iterator<Item = usize> {
        let mut left = self.written.load(Ordering::Relaxed) & (u64::MAX << (first / LINE));
        let lines = std::iter::from_fn(move || {
            let line = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(line)
        });
        lines.flat_map(|line| line * LINE..(line + 1) * LINE)
    }

    /// Makes every entry absent.
    fn clear(&self) {
        self.indices(0).for_each(|index| self.entry(index).store(0, Ordering::Relaxed));
        self.written.store(0, Ordering::Relaxed);
    }
}

/// The limit of the number of table pages. The longest program makes half as many: an op makes a path of at most five.
pub(crate) const CAPACITY: usize = 2 * 5 * OPS;

/// The table pages by number. Each is made at first use, with all entries absent, and never moves.
pub(crate) struct Tables<F> {
    root_level: u8,
    /// The bit that selects the root, if there are two.
    direct: StolenMask,
    /// The root table of each [`Root`].
    roots: [AtomicU64; Root::ALL.len()],
    pages: Box<[OnceLock<TablePage>]>,
    /// The number of threads that use table pages without the `mmu_lock`. While it is not 0 no page is reused.
    readers: AtomicU64,
    /// How often an entry or a root was written. Only a caller that has the VM to itself compares two of these, so it is no part of
    /// what threads do to each other.
    writes: Counter,
    format: PhantomData<F>,
}

/// While it lives, no table page is freed (`walk_shadow_page_lockless_begin()`).
pub(crate) struct Reading<'a>(&'a AtomicU64);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<F: Format> std::fmt::Debug for Tables<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at most {} table pages", self.pages.len())
    }
}

impl<F: Format> Tables<F> {
    /// No table page is made yet.
    pub(crate) fn new(levels: Levels) -> Self {
        let pages = std::iter::repeat_with(OnceLock::new).take(CAPACITY).collect();
        let roots = Root::ALL.map(|root| AtomicU64::new(root as u64));
        let (root_level, readers) = (levels.count(), AtomicU64::new(0));
        let writes = Counter::new(0);
        Self { root_level, direct: StolenMask::NONE, roots, pages, readers, writes, format: PhantomData }
    }

    /// Addresses with the bit of `direct` get a root of their own. Both roots are reset.
    pub(crate) fn split_roots(&mut self, direct: StolenMask) {
        self.direct = direct;
        self.roots = Root::ALL.map(|root| AtomicU64::new(root as u64));
    }

    /// The bit that selects the root; none if there is one root only.
    pub(crate) const fn direct_bits(&self) -> StolenMask {
        self.direct
    }

    /// The root table of `root`.
    pub(crate) fn root(&self, root: Root) -> u32 {
        self.roots[root as usize].load(Ordering::Acquire) as u32
    }

    /// Makes `table` the root table of `root`.
    pub(crate) fn set_root(&self, root: Root, table: u32) {
        self.note_write();
        self.roots[root as usize].store(table.into(), Ordering::Release);
    }

    /// The root table for `gpa`.
    pub(crate) fn root_of(&self, gpa: Gpa) -> u32 {
        self.root(Root::of(self.direct, gpa))
    }

    /// The level of the root; leaves are at level 1.
    pub(crate) const fn root_level(&self) -> u8 {
        self.root_level
    }

    /// Makes the entries of the first `tables` table pages absent, and sets the number of levels.
    pub(crate) fn wipe(&mut self, tables: usize, levels: Levels) {
        self.root_level = levels.count();
        self.pages[..tables].iter().filter_map(OnceLock::get).for_each(TablePage::clear);
    }

    /// Keeps table pages from being freed while the result lives.
    pub(crate) fn reading(&self) -> Reading<'_> {
        // SeqCst: it orders this with the check for readers that follows the removal of entries.
        self.readers.fetch_add(1, Ordering::SeqCst);
        Reading(&self.readers)
    }

    /// Makes every entry of `table` absent, after all readers without a lock are gone. No entry may link the table.
    pub(crate) fn free(&self, table: u32) {
        while self.readers.load(Ordering::SeqCst) != 0 {
            spin();
        }
        self.page(table).clear();
    }

    fn page(&self, table: u32) -> &TablePage {
        self.pages[table as usize].get_or_init(TablePage::absent)
    }

    /// How often an entry or a root was written.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(CounterOrdering::Relaxed)
    }

    fn note_write(&self) {
        self.writes.store(self.writes().wrapping_add(1), CounterOrdering::Relaxed);
    }

    fn to_write(&self, at: Sptep) -> &AtomicU64 {
        self.note_write();
        self.page(at.table).entry_to_write(at.index.into())
    }

    pub(crate) fn get(&self, at: Sptep) -> Entry<F> {
        Entry::from_raw(self.page(at.table).entry(at.index.into()).load(Ordering::Acquire))
    }

    /// Release: a reader of the entry sees the contents of the table that it links.
    pub(crate) fn set(&self, at: Sptep, entry: Entry<F>) {
        self.to_write(at).store(entry.raw(), Ordering::Release);
    }

    /// Changes the entry from `old` to `new`. Returns false if it was changed meanwhile.
    pub(crate) fn replace(&self, at: Sptep, old: Entry<F>, new: Entry<F>) -> bool {
        let (from, to) = (old.raw(), new.raw());
        from == to || self.to_write(at).compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Changes the entry atomically against page walkers and fast page faults, and returns the old one.
    pub(crate) fn update(&self, at: Sptep, change: impl Fn(Entry<F>) -> Entry<F>) -> Entry<F> {
        loop {
            let old = self.get(at);
            if self.replace(at, old, change(old)) {
                return old;
            }
        }
    }

    /// The entry at which a walk for `gpa` ends: a leaf of any level, or an absent entry.
    fn end_of_walk(&self, gpa: Gpa) -> (Sptep, Entry<F>) {
        let (mut table, mut level) = (self.root_of(gpa), self.root_level);
        loop {
            let at = Sptep::new(table, index(gpa, level), level);
            let entry = self.get(at);
            if entry.is_leaf(level) || !entry.is_present() {
                return (at, entry);
            }
            (table, level) = (entry.table(), level - 1);
        }
    }

    /// The table of `level` on the path of `gpa`, if the path reaches it.
    pub(crate) fn table_at(&self, gpa: Gpa, level: u8) -> Option<u32> {
        let mut table = self.root_of(gpa);
        for above in (level + 1..=self.root_level).rev() {
            let entry = self.get(Sptep::new(table, index(gpa, above), above));
            if !entry.is_present() || entry.is_leaf(above) {
                return None;
            }
            table = entry.table();
        }
        Some(table)
    }

    /// The leaf entry for `gpa`: a large leaf, or an entry of a table of leaves, present or not. `None` if the path
    /// does not exist.
    pub(crate) fn leaf(&self, gpa: Gpa) -> Option<Sptep> {
        let (at, entry) = self.end_of_walk(gpa);
        (at.level == 1 || entry.is_present()).then_some(at)
    }

    /// The mapping of `gpa`.
    pub(crate) fn walk(&self, gpa: Gpa) -> Option<Spte> {
        let (at, entry) = self.end_of_walk(gpa);
        entry.spte(gpa, at.level)
    }

    /// The mappings of the frames of the window from `gpa`, which are `stride` pages apart. `stride` is a power of two.
    /// Absent ones are left out.
    pub(crate) fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        self.walk_frames((gpa, stride.trailing_zeros()), (self.root_of(gpa), self.root_level), 0..FRAMES, visit);
    }

    /// The same for the `frames` that `table`, which is of `level`, translates.
    fn walk_frames(
        &self,
        window: (Gpa, u32),
        (table, level): (u32, u8),
        frames: Range<usize>,
        visit: &mut dyn FnMut(usize, Spte),
    ) {
        let (gpa, shift) = window;
        let gpa_of = |frame: usize| gpa.add_pages((frame as u64) << shift);
        if level == 1 {
            let first = gpa_of(frames.start);
            self.entries(table, 1).for_each(|(leaf, entry)| {
                if let Some(pages) = usize::from(leaf.index).checked_sub(index(first, 1))
                    && pages % (1 << shift) == 0
                    && pages >> shift < frames.len()
                    && let Some(spte) = entry.spte(first, 1)
                {
                    visit(frames.start + (pages >> shift), spte);
                }
            });
            return;
        }
        let mut rest = frames;
        while !rest.is_empty() {
            let first = gpa_of(rest.start);
            // One look covers all frames that the entry translates.
            let run = ((pages_from(first, level) - 1) >> shift) as usize + 1;
            let frames = rest.start..rest.end.min(rest.start + run);
            rest.start = frames.end;
            let entry = self.get(Sptep::new(table, index(first, level), level));
            if entry.is_present() && !entry.is_leaf(level) {
                self.walk_frames(window, (entry.table(), level - 1), frames, visit);
            } else if entry.is_present() {
                for frame in frames {
                    if let Some(spte) = entry.spte(gpa_of(frame), level) {
                        visit(frame, spte);
                    }
                }
            }
        }
    }

    /// The entries of `table`, which is of `level`, that are not absent, with their places.
    pub(crate) fn entries(&self, table: u32, level: u8) -> impl Iterator<Item = (Sptep, Entry<F>)> {
        self.entries_from_line(Sptep::new(table, 0, level))
    }

    /// The next entry after `at` in the same table that is not absent.
    pub(crate) fn next_entry(&self, at: Sptep) -> Option<(Sptep, Entry<F>)> {
        self.entries_from_line(at).find(|(next, _)| next.index > at.index)
    }

    fn entries_from_line(&self, at: Sptep) -> impl Iterator<Item = (Sptep, Entry<F>)> {
        let (Sptep { table, index, level }, page) = (at, self.page(at.table));
        let entry = |index: usize| Entry::from_raw(page.entry(index).load(Ordering::Acquire));
        let all = page.indices(index.into()).map(move |index| (Sptep::new(table, index, level), entry(index)));
        all.filter(|(_, entry)| *entry != Entry::ABSENT)
    }
}
