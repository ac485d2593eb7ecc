//! A look inside: roots, tables, TLBs, memslots.
//!
//! UNSAFETY: reads bitmaps of the kernel.

#![expect(unsafe_code, reason = "reads bitmaps of the kernel")]

use super::{Failure, Fd, Function, Kernel, Vendor};
use crate::cpu::{self, Leaf, Tables, walk};
use crate::memory::physical;

/// A present leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in the table.
    pub raw: u64,
    /// Where it stands, as a physical address.
    pub at: u64,
    /// 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub level: u8,
    /// The page of the address that was asked for, or the first page of the leaf.
    pub pfn: u64,
    /// Read, write and execute: bits 0, 1, 2; of all levels together.
    pub rights: u8,
    /// Whether the processor has seen it accessed.
    pub accessed: bool,
    /// Whether the processor has written by it.
    pub dirty: bool,
}

/// A root of a VM: a tree of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The physical address of its first table.
    pub table: u64,
    /// Levels.
    pub level: u8,
    /// Address space: 1 for SMM.
    pub address_space: u8,
    /// Whether it waits to be taken apart.
    pub obsolete: bool,
}

/// A table page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its physical address.
    pub at: u64,
    /// Of its entries.
    pub level: u8,
    /// The first frame that it translates.
    pub gfn: u64,
    /// Index and raw value of each entry that is not 0.
    pub entries: Vec<(u64, u64)>,
}

/// A `struct kvm_mmu_page`: `struct worker_page`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// The first frame, or the frame of the guest's table that it shadows.
    pub gfn: u64,
    /// The physical address of its table.
    pub table: u64,
    /// `role.word`.
    pub role: u32,
    /// How many use it as a root.
    pub root_count: u32,
    /// `role.level`.
    pub level: u8,
    /// 1 for SMM.
    pub address_space: u8,
    /// `role.direct`.
    pub direct: u8,
    /// Whether it is of before the last fast zap, or waits to be taken apart.
    pub obsolete: u8,
    /// `role.access`: execute 1, write 2, user 4.
    pub access: u8,
    /// `role.guest_mode`.
    pub guest_mode: u8,
    /// Whether it is the TDP MMU's.
    pub tdp_mmu: u8,
    /// `unsync`.
    pub unsync: u8,
}

/// A memslot, as KVM has it: `struct worker_slot`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// First frame.
    pub gfn: u64,
    /// How many.
    pub pages: u64,
    /// First address of user space.
    pub hva: u64,
    /// `KVM_MEM_…`.
    pub flags: u64,
    bitmap: u64,
}

/// A translation in a vCPU's TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbEntry {
    /// The first frame.
    pub gfn: u64,
    /// What it leads to.
    pub entry: Entry,
}

/// Room for shadow pages at first.
const PAGES: usize = 128;

impl Kernel {
    /// All shadow pages; of the TDP MMU the roots alone.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn pages(&self, vm: Fd) -> Result<Vec<Page>, Failure> {
        let mut pages = vec![Page::default(); PAGES];
        loop {
            let arguments = [vm.0.into(), pages.as_mut_ptr() as u64, pages.len() as u64];
            let found = self.call(Function::Pages, &arguments)? as u32 as usize;
            let enough = found <= pages.len();
            pages.resize(found, Page::default());
            if enough {
                return Ok(pages);
            }
        }
    }

    /// The shadow page that the table at a physical address is.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn page_of_table(&self, vm: Fd, table: u64) -> Result<Option<Page>, Failure> {
        let mut page = Page::default();
        let found = self.call(Function::PageOfTable, &[vm.0.into(), table, &raw mut page as u64])?;
        Ok((found as u8 != 0).then_some(page))
    }

    /// All roots of a VM.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn roots(&self, vm: Fd) -> Result<Vec<Root>, Failure> {
        let roots = self.pages(vm)?.into_iter().filter(|page| page.tdp_mmu != 0 || page.root_count > 0);
        let root = |page: Page| Root {
            table: page.table,
            level: page.level,
            address_space: page.address_space,
            obsolete: page.obsolete != 0,
        };
        Ok(roots.map(root).collect())
    }

    /// The root that a vCPU uses, if it has one: its physical address and its levels.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn root_of(&self, vcpu: Fd) -> Result<Option<Root>, Failure> {
        let state = self.vcpu(vcpu)?;
        let root =
            Root { table: state.root, level: state.root_level as u8, address_space: state.smm as u8, obsolete: false };
        Ok((state.root != u64::MAX).then_some(root))
    }

    /// The leaf that leads from `gpa`, if one is present. Nothing is touched.
    pub fn walk(&self, root: &Root, gpa: u64) -> Option<Entry> {
        cpu::leaf_of(&self.tables(root), gpa).map(|leaf| entry(&leaf, gpa))
    }

    /// Walk to `frames` addresses from `gpa` on, `stride` bytes apart: `visit` is given the number and the leaf of each that has one.
    pub fn window(&self, root: &Root, gpa: u64, frames: u64, stride: u64, visit: &mut dyn FnMut(u64, Entry)) {
        let mut path = walk::Path::new(self.top(root));
        for number in 0..frames {
            let address = gpa + number * stride;
            if let Some(leaf) = path.leaf(address) {
                visit(number, entry(&leaf, address));
            }
        }
    }

    /// All present leaves: the first frame of each.
    pub fn leaves(&self, root: &Root) -> Vec<(u64, Entry)> {
        let mut leaves = Vec::new();
        walk::leaves(&self.top(root), &mut |address, leaf| leaves.push((address >> 12, entry(leaf, address))));
        leaves
    }

    /// The tables that hang from `root`, the first included.
    pub fn tables_of(&self, root: &Root) -> Vec<Table> {
        let mut tables = Vec::new();
        walk::tables(&self.top(root), &mut |inner, entries| {
            let gfn = inner.address >> 12;
            tables.push(Table { at: inner.table, level: inner.level, gfn, entries: entries.to_vec() });
        });
        tables
    }

    /// Whether what a vCPU's TLB holds is to be dropped before the vCPU enters the guest again.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn flush_pending(&self, vcpu: Fd) -> Result<bool, Failure> {
        Ok(self.call(Function::FlushOwed, &[vcpu.0.into()])? as u8 != 0 || self.tags(vcpu)?.1 != 0)
    }

    /// Empty all TLBs: a processor may forget a translation at any time.
    pub fn forget_translations(&self) {
        cpu::drop_all();
    }

    /// What a vCPU's TLB holds under the tag that the vCPU has.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn tlb(&self, vcpu: Fd) -> Result<Vec<TlbEntry>, Failure> {
        let (tag, _) = self.tags(vcpu)?;
        let cached = cpu::cached(tag).into_iter();
        Ok(cached.map(|cached| TlbEntry { gfn: cached.gfn, entry: entry(&cached.leaf, cached.gfn << 12) }).collect())
    }

    /// The tag of a vCPU's translations, and what its control block says of flushing.
    fn tags(&self, vcpu: Fd) -> Result<(u64, u32), Failure> {
        let (mut tag, mut flush) = (0_u64, 0_u32);
        let tags = if self.vendor == Vendor::Amd { Function::SvmTags } else { Function::VmxTags };
        self.call(tags, &[vcpu.0.into(), &raw mut tag as u64, &raw mut flush as u64])?;
        Ok((tag, flush))
    }

    /// Memslot `id`, with the address space in the bits above 15.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn slot(&self, vm: Fd, id: u32) -> Result<Option<Slot>, Failure> {
        let mut slot = Slot::default();
        let found = self.call(Function::Slot, &[vm.0.into(), id.into(), &raw mut slot as u64])?;
        Ok((found as u8 != 0).then_some(slot))
    }

    /// The dirty bitmap of a memslot as it stands, a bit for each page; `None` without one.
    pub fn dirty_bitmap(&self, slot: &Slot) -> Option<Vec<u64>> {
        let words = slot.pages.div_ceil(64);
        // SAFETY: KVM's bitmap has a bit for each page, in whole words.
        (slot.bitmap != 0).then(|| (0..words).map(|word| unsafe { physical::read(slot.bitmap + word * 8) }).collect())
    }

    /// The dirty ring of a vCPU: its first entry and their number, which is 0 without one.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn dirty_ring(&self, vcpu: Fd) -> Result<(*mut kvm_bindings::kvm_dirty_gfn, u32), Failure> {
        let state = self.vcpu(vcpu)?;
        Ok((state.ring as *mut _, if state.ring == 0 { 0 } else { state.ring_entries }))
    }

    fn top(&self, root: &Root) -> walk::Inner {
        walk::Inner::top(&self.tables(root))
    }

    fn tables(&self, root: &Root) -> Tables {
        Tables {
            root: root.table,
            levels: root.level,
            user: false,
            physical_bits: self.physical_bits,
            format: self.format,
        }
    }
}

fn entry(leaf: &Leaf, address: u64) -> Entry {
    let rights = 1 | u8::from(leaf.writable) << 1 | u8::from(leaf.executable) << 2;
    let pfn = leaf.physical(address) >> 12;
    Entry { raw: leaf.raw, at: leaf.at, level: leaf.level, pfn, rights, accessed: leaf.accessed(), dirty: leaf.dirty() }
}
