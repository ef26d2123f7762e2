//! How long an ELF file has to be, by its own headers: whether it is all there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A number in a header: where it begins, and how many bytes it has.
type Field = (usize, usize);

/// Where the numbers are that tell of the file's length.
struct Layout {
    header_bytes: u64,
    /// The tables of segments and of sections: where in the file, bytes of an entry, entries.
    tables: [[Field; 3]; 2],
    /// Of an entry of the first: where in the file the segment is, and how many bytes it has there.
    segment: [Field; 2],
}

const NARROW: Layout = Layout {
    header_bytes: 52,
    tables: [[(28, 4), (42, 2), (44, 2)], [(32, 4), (46, 2), (48, 2)]],
    segment: [(4, 4), (16, 4)],
};

const WIDE: Layout = Layout {
    header_bytes: 64,
    tables: [[(32, 8), (54, 2), (56, 2)], [(40, 8), (58, 2), (60, 2)]],
    segment: [(8, 8), (32, 8)],
};

/// The type of a segment that is loaded.
const PT_LOAD: u64 = 1;

/// The order of the bytes in a number.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The number in this field; 0 where the bytes end before it does.
    fn number(self, bytes: &[u8], (at, size): Field) -> u64 {
        let append = |number, byte: &u8| number << 8 | u64::from(*byte);
        let field = bytes.get(at..at + size).unwrap_or_default();
        match self {
            Self::Little => field.iter().rev().fold(0, append),
            Self::Big => field.iter().fold(0, append),
        }
    }
}

/// How many bytes `file`, which begins with `start`, has to have at the least: its header, its two tables, and what is loaded.
pub(super) fn least_bytes(start: &[u8], file: &File) -> io::Result<u64> {
    let layout = if start.get(4) == Some(&1) { NARROW } else { WIDE };
    let order = if start.get(5) == Some(&2) { Order::Big } else { Order::Little };
    let [segments, sections] = layout.tables.map(|table| table.map(|field| order.number(start, field)));
    let end = |[at, size, count]: [u64; 3]| if count == 0 { 0 } else { at.saturating_add(size * count) };
    let tables = layout.header_bytes.max(end(segments)).max(end(sections));
    if tables > file.metadata()?.len() {
        return Ok(tables);
    }
    let [at, size, count] = segments;
    // Both are of 16 bits.
    let (size, mut table) =
        (usize::try_from(size).unwrap_or(0), vec![0; usize::try_from(size * count).unwrap_or(0)]);
    file.read_exact_at(&mut table, at)?;
    let loaded = table.chunks_exact(size.max(1)).filter(|entry| order.number(entry, (0, 4)) == PT_LOAD);
    let ends = loaded.map(|entry| {
        let [at, bytes] = layout.segment.map(|field| order.number(entry, field));
        if bytes == 0 { 0 } else { at.saturating_add(bytes) }
    });
    Ok(ends.fold(tables, u64::max))
}
