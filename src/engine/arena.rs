//! Where a shard's entries lie: pages of equal cells, one size class a page (Bonwick, "The Slab Allocator",
//! USENIX 1994; memcached's slabs), with two differences. Classes are a thirty-second apart, not a quarter, so
//! rounding costs 1.6 % on average; and a page can be emptied by moving its cells to other pages of its class,
//! so memory never stays with a size that is no longer stored (memcached's "slab calcification").
//!
//! Invariants: a cell belongs to exactly one of {live, free list of its page, not yet carved}; a page with no
//! live cell is given back at once, but for one spare of each kind; `held_bytes` is what all pages take.
//!
//! A cell's address is `page << 14 | offset / 4`; pages count from 1, so no address is 0, and the top bit
//! is never set. That is the [`Slot`] of the entry that lies there. It is not a heap in general: what is larger
//! than the largest class lives elsewhere.

use super::slot::Slot;

/// No page, in a list of pages.
const NO_PAGE: u32 = 0;
/// Addresses are in units of this many bytes.
const GRANULE: usize = 4;
/// Bits of an address below the page number.
const PAGE_SHIFT: u32 = 14;
/// A page for cells of up to [`SMALL_CELL_MAX`]: little is lost while a class has few entries. The largest size that
/// jemalloc still packs; from 16 KiB on it gives every allocation a page of 4 KiB more.
const SMALL_PAGE_BYTES: usize = 14 << 10;
/// A page for larger cells: little is lost at its end.
const LARGE_PAGE_BYTES: usize = 64 << 10;
/// What the allocator takes for a large page beside it.
const LARGE_PAGE_EXTRA: u64 = 4 << 10;
const SMALL_CELL_MAX: usize = 512;
/// Pages that an address can name, less the page 0 that does not exist.
const PAGES_MAX: usize = (1 << 17) - 1;
/// No cell, inside a page.
const NO_CELL: u16 = u16::MAX;
/// Where a live cell has a word that is never 0 and a free one has 0.
pub(crate) const LIVE_WORD: usize = 16;

/// The most bytes that one arena can hold with any mix of sizes.
pub(crate) const ARENA_BYTES_MAX: u64 = (PAGES_MAX * SMALL_PAGE_BYTES) as u64;

/// The size classes, by number, and for small sizes a table from size to class.
struct Classes {
    sizes: [u16; CLASSES_COUNT],
    /// Cells in a page.
    cells: [u16; CLASSES_COUNT],
    /// The class of the largest cells that an entry may lie in.
    largest: [u8; CLASSES_COUNT],
    by_granule: [u8; 1024 / GRANULE + 1],
}

static CLASSES: Classes = {
    let mut classes = Classes {
        sizes: [0; CLASSES_COUNT],
        cells: [0; CLASSES_COUNT],
        largest: [0; CLASSES_COUNT],
        by_granule: [0; 1024 / GRANULE + 1],
    };
    let (mut class, mut size) = (0, 32);
    while class < CLASSES_COUNT {
        classes.sizes[class] = size as u16;
        classes.cells[class] = (page_bytes(size) / size) as u16;
        class += 1;
        size = next_size(size);
    }
    let mut granule = 0;
    (class, size) = (0, 32);
    while granule <= 1024 / GRANULE {
        if size < granule * GRANULE {
            class += 1;
            size = next_size(size);
        }
        classes.by_granule[granule] = class as u8;
        granule += 1;
    }
    class = 0;
    let mut largest = 0;
    while class < CLASSES_COUNT {
        let at_most = classes.sizes[class] + classes.sizes[class] / 8;
        while largest + 1 < CLASSES_COUNT && classes.sizes[largest + 1] <= at_most {
            largest += 1;
        }
        classes.largest[class] = largest as u8;
        class += 1;
    }
    classes
};

const CLASSES_COUNT: usize = {
    let (mut count, mut size) = (1, 32);
    while size < CELL_BYTES_MAX {
        (count, size) = (count + 1, next_size(size));
    }
    count
};

/// The size of the class after.
const fn next_size(size: usize) -> usize {
    if size < 1024 {
        return (size + (1 << size.ilog2()) / 32).next_multiple_of(GRANULE);
    }
    // From here on one cell less in a page.
    let cells = if size == 1024 { 62 } else { LARGE_PAGE_BYTES / size - 1 };
    LARGE_PAGE_BYTES / cells / GRANULE * GRANULE
}

/// The largest cell, in bytes.
pub(crate) const CELL_BYTES_MAX: usize = LARGE_PAGE_BYTES / 7 / GRANULE * GRANULE;

/// The class of the smallest cells that hold `size` bytes.
#[inline]
pub(crate) fn class_of(size: usize) -> usize {
    debug_assert!(size <= CELL_BYTES_MAX);
    match CLASSES.by_granule.get(size.div_ceil(GRANULE)) {
        Some(class) => usize::from(*class),
        None => CLASSES.sizes.partition_point(|cell| usize::from(*cell) < size),
    }
}

/// The bytes of a cell of the class.
#[inline]
pub(crate) fn cell_bytes(class: usize) -> usize {
    usize::from(CLASSES.sizes[class])
}

/// The largest cell that an entry of the class may lie in: an eighth larger, at most.
#[inline]
pub(crate) fn largest_cell_for(class: usize) -> usize {
    cell_bytes(usize::from(CLASSES.largest[class]))
}

/// The bytes of a page with cells of `cell` bytes.
const fn page_bytes(cell: usize) -> usize {
    if cell <= SMALL_CELL_MAX { SMALL_PAGE_BYTES } else { LARGE_PAGE_BYTES }
}

/// The bytes of the process's memory that a page of `bytes` bytes takes.
fn page_takes(bytes: usize) -> u64 {
    bytes as u64 + if bytes == LARGE_PAGE_BYTES { LARGE_PAGE_EXTRA } else { 0 }
}

#[inline]
fn cells_per_page(class: usize) -> u16 {
    CLASSES.cells[class]
}

#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    class: u16,
    cell: u16,
    /// Cells taken from the page's fresh end so far.
    carved: u16,
    live: u16,
    /// First free cell, as offset / 4; each free cell names the next.
    free: u16,
    /// Neighbours in the class's list of pages with room.
    prev: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    /// First page with room.
    roomy: u32,
    /// Cells that could be handed out without a new page.
    free_cells: u32,
}

impl Slot {
    /// The slot of a cell: its page's number and its granule in there.
    #[inline]
    fn at(page: u32, granule: u16) -> Self {
        Self::numbered(page << PAGE_SHIFT | u32::from(granule))
    }

    #[inline]
    fn page(self) -> u32 {
        self.number() >> PAGE_SHIFT
    }

    /// Where the cell begins in its page, in bytes.
    #[inline]
    fn offset(self) -> usize {
        (self.number() & ((1 << PAGE_SHIFT) - 1)) as usize * GRANULE
    }
}

/// A shard's pages.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Indexed by page number; number 0 stays empty.
    pages: Vec<Option<Page>>,
    unused_numbers: Vec<u32>,
    spares: [Option<Box<[u8]>>; 2],
    classes: Vec<Class>,
    held_bytes: u64,
    spare_cell_bytes: u64,
    /// How many cells were freed so far: while this stays, what was a live cell is the same one.
    freed: u64,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self {
            pages: vec![None],
            unused_numbers: Vec::new(),
            spares: [None, None],
            classes: vec![Class::default(); CLASSES_COUNT],
            held_bytes: 0,
            spare_cell_bytes: 0,
            freed: 0,
        }
    }

    /// How many cells were freed so far.
    #[inline]
    pub(crate) fn freed(&self) -> u64 {
        self.freed
    }

    /// As one that has freed more cells than `other`.
    pub(crate) fn after(other: &Self) -> Self {
        Self { freed: other.freed + 1, ..Self::new() }
    }

    /// What all pages take.
    #[inline]
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What lies in cells that are free or not yet carved.
    #[inline]
    pub(crate) fn spare_cell_bytes(&self) -> u64 {
        self.spare_cell_bytes
    }

    /// What lies in cells that hold an entry.
    pub(crate) fn cell_bytes_in_use(&self) -> u64 {
        let cells = |page: &Page| u64::from(page.live) * u64::from(page.cell);
        self.pages.iter().flatten().map(cells).sum()
    }

    /// What one more page for the class would take.
    #[inline]
    pub(crate) fn page_cost(&self, class: usize) -> u64 {
        let spare = self.spares[usize::from(page_bytes(cell_bytes(class)) == LARGE_PAGE_BYTES)].is_some();
        if spare { 0 } else { page_takes(page_bytes(cell_bytes(class))) }
    }

    /// A free cell of the class, or of one at most an eighth larger: a class that is seldom stored does not
    /// need pages of its own.
    #[inline]
    pub(crate) fn allocate(&mut self, class: usize) -> Option<Slot> {
        let found = self.roomy_class(class)?;
        Some(self.take_from(self.classes[found].roomy))
    }

    /// Whether [`Self::allocate`] would find a cell.
    #[inline]
    pub(crate) fn has_room(&self, class: usize) -> bool {
        self.roomy_class(class).is_some()
    }

    #[inline]
    fn roomy_class(&self, class: usize) -> Option<usize> {
        let reach = &self.classes[class..=usize::from(CLASSES.largest[class])];
        reach.iter().position(|other| other.roomy != NO_PAGE).map(|further| class + further)
    }

    /// Gives back the spare pages.
    pub(crate) fn drop_spares(&mut self) {
        for spare in &mut self.spares {
            self.held_bytes -= spare.take().map_or(0, |bytes| page_takes(bytes.len()));
        }
    }

    /// Adds a page for the class. False when addresses have run out.
    pub(crate) fn add_page(&mut self, class: usize) -> bool {
        let number = match self.unused_numbers.pop() {
            Some(number) => number,
            None if self.pages.len() <= PAGES_MAX => {
                self.pages.push(None);
                (self.pages.len() - 1) as u32
            }
            None => return false,
        };
        let kind = usize::from(page_bytes(cell_bytes(class)) == LARGE_PAGE_BYTES);
        let bytes = self.spares[kind].take().unwrap_or_else(|| {
            self.held_bytes += page_takes(page_bytes(cell_bytes(class)));
            vec![0; page_bytes(cell_bytes(class))].into_boxed_slice()
        });
        self.pages[number as usize] = Some(Page {
            bytes,
            class: class as u16,
            cell: cell_bytes(class) as u16,
            carved: 0,
            live: 0,
            free: NO_CELL,
            prev: NO_PAGE,
            next: NO_PAGE,
        });
        self.classes[class].free_cells += u32::from(cells_per_page(class));
        self.spare_cell_bytes += (usize::from(cells_per_page(class)) * cell_bytes(class)) as u64;
        self.link_roomy(class, number);
        true
    }

    /// Gives a cell back, and its page with it if it was the last.
    #[inline]
    pub(crate) fn free(&mut self, slot: Slot) {
        let number = slot.page();
        let page = self.page_mut(number);
        let was_full = page.live == cells_per_page(usize::from(page.class));
        let at = slot.offset();
        page.bytes[at..at + 2].copy_from_slice(&page.free.to_le_bytes());
        page.bytes[at + LIVE_WORD..at + LIVE_WORD + 4].fill(0);
        page.free = (at / GRANULE) as u16;
        page.live -= 1;
        let (class, live, cell) = (usize::from(page.class), page.live, u64::from(page.cell));
        self.freed += 1;
        self.classes[class].free_cells += 1;
        self.spare_cell_bytes += cell;
        if was_full {
            self.link_roomy(class, number);
        }
        if live == 0 {
            self.release_page(number);
        }
    }

    /// The cell's bytes.
    #[inline]
    pub(crate) fn cell(&self, slot: Slot) -> &[u8] {
        let (page, at) = (self.page(slot.page()), slot.offset());
        &page.bytes[at..at + usize::from(page.cell)]
    }

    /// The cell's bytes, to write.
    #[inline]
    pub(crate) fn cell_mut(&mut self, slot: Slot) -> &mut [u8] {
        let (page, at) = (self.page_mut(slot.page()), slot.offset());
        let cell = usize::from(page.cell);
        &mut page.bytes[at..at + cell]
    }

    /// How large the cell is.
    #[inline]
    pub(crate) fn cell_size(&self, slot: Slot) -> usize {
        usize::from(self.page(slot.page()).cell)
    }

    /// The live cells of the page that is the cheapest to empty, among the classes whose free cells elsewhere
    /// would take them all; `None` if no class has that many.
    pub(crate) fn page_to_empty(&self) -> Option<Vec<Slot>> {
        let excess = |class: &usize| {
            let free = self.classes[*class].free_cells;
            free.saturating_sub(u32::from(cells_per_page(*class))) as usize * cell_bytes(*class)
        };
        let class = (0..self.classes.len())
            .filter(|class| self.classes[*class].free_cells > u32::from(cells_per_page(*class)))
            .max_by_key(excess)?;
        let mut emptiest: Option<(u16, u32)> = None;
        let mut number = self.classes[class].roomy;
        for _ in 0..PAGES_LOOKED_AT {
            if number == NO_PAGE {
                break;
            }
            let page = self.page(number);
            if emptiest.is_none_or(|(live, _)| page.live < live) {
                emptiest = Some((page.live, number));
            }
            number = page.next;
        }
        emptiest.map(|(_, number)| self.live_cells(number))
    }

    /// Takes a cell of the same class on another page than `from`'s. The caller copies and frees.
    pub(crate) fn allocate_elsewhere(&mut self, from: Slot) -> Option<Slot> {
        let number = from.page();
        let class = usize::from(self.page(number).class);
        let mut other = self.classes[class].roomy;
        if other == number {
            other = self.page(number).next;
        }
        (other != NO_PAGE).then(|| self.take_from(other))
    }

    /// All live cells of all pages.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn live(&self) -> impl Iterator<Item = Slot> + '_ {
        (1..self.pages.len() as u32)
            .filter(|number| self.pages[*number as usize].is_some())
            .flat_map(|number| self.live_cells(number))
    }

    /// Checks every count against what the pages say.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        let (mut held, mut spare, mut free) = (0, 0, vec![0u32; self.classes.len()]);
        for (number, page) in self.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            let cells = cells_per_page(usize::from(page.class));
            assert_eq!(self.live_cells(number as u32).len(), usize::from(page.live), "page {number}");
            assert!(page.live > 0, "page {number} is empty and was not given back");
            held += page_takes(page.bytes.len());
            spare += u64::from(cells - page.live) * u64::from(page.cell);
            free[usize::from(page.class)] += u32::from(cells - page.live);
        }
        held += self.spares.iter().flatten().map(|bytes| page_takes(bytes.len())).sum::<u64>();
        assert_eq!((held, spare), (self.held_bytes, self.spare_cell_bytes));
        for (class, free) in free.into_iter().enumerate() {
            assert_eq!(self.classes[class].free_cells, free, "free cells of class {class}");
            let mut number = self.classes[class].roomy;
            let mut listed = 0;
            while number != NO_PAGE {
                let page = self.page(number);
                assert_eq!(usize::from(page.class), class);
                listed += u32::from(cells_per_page(class) - page.live);
                number = page.next;
            }
            assert_eq!(listed, free, "a page of class {class} with room is not listed");
        }
    }

    #[inline]
    fn page(&self, number: u32) -> &Page {
        self.pages[number as usize].as_ref().expect("an address names a page that exists")
    }

    #[inline]
    fn page_mut(&mut self, number: u32) -> &mut Page {
        self.pages[number as usize].as_mut().expect("an address names a page that exists")
    }

    fn live_cells(&self, number: u32) -> Vec<Slot> {
        let page = self.page(number);
        let cell = usize::from(page.cell);
        (0..usize::from(page.carved))
            .map(|index| index * cell)
            .filter(|at| page.bytes[at + LIVE_WORD..at + LIVE_WORD + 4] != [0; 4])
            .map(|at| Slot::at(number, (at / GRANULE) as u16))
            .collect()
    }

    #[inline]
    fn take_from(&mut self, number: u32) -> Slot {
        let page = self.page_mut(number);
        let offset = if page.free == NO_CELL {
            let at = usize::from(page.carved) * usize::from(page.cell);
            page.carved += 1;
            (at / GRANULE) as u16
        } else {
            let offset = page.free;
            let at = usize::from(offset) * GRANULE;
            page.free = u16::from_le_bytes([page.bytes[at], page.bytes[at + 1]]);
            offset
        };
        page.live += 1;
        let (class, cell) = (usize::from(page.class), u64::from(page.cell));
        let full = page.live == cells_per_page(class);
        self.classes[class].free_cells -= 1;
        self.spare_cell_bytes -= cell;
        if full {
            self.unlink_roomy(class, number);
        }
        Slot::at(number, offset)
    }

    fn link_roomy(&mut self, class: usize, number: u32) {
        let first = self.classes[class].roomy;
        self.page_mut(number).next = first;
        self.page_mut(number).prev = NO_PAGE;
        if first != NO_PAGE {
            self.page_mut(first).prev = number;
        }
        self.classes[class].roomy = number;
    }

    fn unlink_roomy(&mut self, class: usize, number: u32) {
        let (prev, next) = (self.page(number).prev, self.page(number).next);
        match prev {
            NO_PAGE => self.classes[class].roomy = next,
            prev => self.page_mut(prev).next = next,
        }
        if next != NO_PAGE {
            self.page_mut(next).prev = prev;
        }
    }

    fn release_page(&mut self, number: u32) {
        let class = usize::from(self.page(number).class);
        self.unlink_roomy(class, number);
        self.classes[class].free_cells -= u32::from(cells_per_page(class));
        self.spare_cell_bytes -= (usize::from(cells_per_page(class)) * cell_bytes(class)) as u64;
        let page = self.pages[number as usize].take().expect("the page was just read");
        self.unused_numbers.push(number);
        let kind = usize::from(page.bytes.len() == LARGE_PAGE_BYTES);
        if self.spares[kind].is_none() {
            self.spares[kind] = Some(page.bytes);
        } else {
            self.held_bytes -= page_takes(page.bytes.len());
        }
    }
}

/// How many pages with room are looked at for the emptiest.
const PAGES_LOOKED_AT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn live(arena: &mut Arena, slot: Slot) {
        arena.cell_mut(slot)[LIVE_WORD] = 1;
    }

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 28..=CELL_BYTES_MAX {
            let class = class_of(size);
            assert!(cell_bytes(class) >= size);
            assert!(class == 0 || cell_bytes(class - 1) < size, "{size} fits a smaller class");
        }
        assert_eq!(cell_bytes(class_of(140)), 140);
        assert_eq!(cell_bytes(class_of(152)), 152);
    }

    #[test]
    fn pages_come_and_go_with_their_cells() {
        let mut arena = Arena::new();
        let class = class_of(140);
        assert_eq!(arena.allocate(class), None);
        let mut cells = Vec::new();
        for _ in 0..1000 {
            let address = arena.allocate(class).unwrap_or_else(|| {
                assert!(arena.add_page(class));
                arena.allocate(class).unwrap()
            });
            live(&mut arena, address);
            cells.push(address);
        }
        arena.validate();
        let unique: std::collections::HashSet<_> = cells.iter().collect();
        assert_eq!(unique.len(), cells.len());
        for address in cells {
            arena.free(address);
        }
        arena.validate();
        assert_eq!(arena.held_bytes(), SMALL_PAGE_BYTES as u64, "all but one spare page is given back");
    }

    #[test]
    fn a_sparse_page_can_be_emptied_into_its_neighbours() {
        let mut arena = Arena::new();
        let class = class_of(200);
        let mut cells = Vec::new();
        for _ in 0..10 * usize::from(cells_per_page(class)) {
            if arena.classes[class].roomy == NO_PAGE {
                arena.add_page(class);
            }
            let address = arena.allocate(class).unwrap();
            live(&mut arena, address);
            cells.push(address);
        }
        for (i, address) in cells.iter().enumerate() {
            if i % 3 != 0 {
                arena.free(*address);
            }
        }
        let mut emptied = 0;
        while let Some(moving) = arena.page_to_empty() {
            for from in moving {
                let to = arena.allocate_elsewhere(from).unwrap();
                live(&mut arena, to);
                arena.free(from);
            }
            arena.validate();
            emptied += 1;
        }
        assert!(emptied >= 5, "{emptied}");
    }

    #[test]
    fn a_rare_size_borrows_a_cell_that_is_a_little_larger() {
        let mut arena = Arena::new();
        arena.add_page(class_of(148));
        assert!(arena.allocate(class_of(140)).is_some());
        assert!(arena.allocate(class_of(100)).is_none());
        assert!(arena.allocate(class_of(152)).is_none());
    }
}
