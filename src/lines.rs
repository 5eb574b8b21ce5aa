//! The lines of a text: where they end, how many there are, and what stands between them in a
//! frame. Knows no Python.

use std::ops::BitOr;

use memchr::memchr2;
use wide::u8x16;

use crate::output::Output;

/// The lines of `data` that a text becomes, of a size that is known before they are written.
pub struct DataLines<'a> {
    text: &'a [u8],
    breaks: usize,
    size: usize,
}

impl<'a> DataLines<'a> {
    const PREFIX: &'static [u8; 7] = b"\ndata: ";

    /// Count the lines of `text`. Mostly there is one, which is sooner seen than counted.
    pub fn of(text: &'a [u8]) -> Self {
        let mut size = Self::PREFIX.len() + text.len();
        let mut breaks = 0;
        if memchr2(b'\r', b'\n', text).is_some() {
            breaks = count(text, |byte| matches!(byte, b'\r' | b'\n'));
            size -= breaks;
            breaks -= count_crlf(text);
            size += breaks * Self::PREFIX.len();
        }
        Self { text, breaks, size }
    }

    /// Return how many bytes they take.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Pass them to `put`, piece by piece: they are put together in `lines` first, since a line
    /// may be short and `put` slow.
    ///
    /// # Errors
    ///
    /// Those of `put`.
    pub fn write<E>(
        &self,
        lines: &mut Output,
        mut put: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        const TOGETHER: usize = 4096;
        put(&Self::PREFIX[1..])?;
        if self.breaks == 0 {
            put(self.text)?;
        } else {
            let mut rest = self.text;
            while !rest.is_empty() {
                let mut end = rest.len().min(TOGETHER);
                // A CRLF is not taken apart.
                if rest[end - 1..].starts_with(b"\r\n") {
                    end += 1;
                }
                let (together, after) = rest.split_at(end);
                lines.truncate(0);
                append_lines(lines, Self::PREFIX, together);
                put(lines)?;
                rest = after;
            }
        }
        put(b"\n")
    }
}

/// Append `text` with `prefix` in the place of each break.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "for short texts the call would cost as much, and the length of `prefix` is known"
)]
pub(crate) fn append_lines(out: &mut Output, prefix: &[u8], text: &[u8]) {
    let mut start = 0;
    let (blocks, rest) = text.as_chunks::<64>();
    let breaks = blocks.iter().map(|block| line_breaks(block));
    for (index, mut breaks) in breaks.chain([line_breaks(rest)]).enumerate() {
        while breaks != 0 {
            let at = 64 * index + breaks.trailing_zeros() as usize;
            breaks &= breaks - 1;
            if at < start {
                continue; // the LF of a CRLF
            }
            out.extend_from_slice(&text[start..at]);
            out.extend_from_slice(prefix);
            start = at + 1;
            if text[at..].starts_with(b"\r\n") {
                start += 1;
            }
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// How many bytes are so few that a byte can count them: of that a compiler makes SIMD.
const COUNTED_AT_ONCE: usize = 192;

fn count(text: &[u8], is_counted: impl Fn(u8) -> bool) -> usize {
    let flags = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(is_counted(*byte))).sum();
    let counts = text.chunks(COUNTED_AT_ONCE).map(flags);
    counts.map(|count: u8| usize::from(count)).sum()
}

fn count_crlf(text: &[u8]) -> usize {
    let first = text.chunks(COUNTED_AT_ONCE);
    let second = text.get(1..).unwrap_or_default().chunks(COUNTED_AT_ONCE);
    let counts = first.zip(second).map(|(first, second)| {
        let pairs = first.iter().zip(second);
        pairs
            .map(|(first, second)| u8::from(*first == b'\r' && *second == b'\n'))
            .sum()
    });
    counts.map(|count: u8| usize::from(count)).sum()
}

/// A bit for each of up to 64 bytes that is a CR or LF, the first byte's the lowest.
///
/// Where they are all found in one pass, asking `memchr` for the next one after each takes a half
/// more, though it has wider instructions.
#[inline(always)]
#[expect(clippy::inline_always, reason = "for whole blocks the loops are gone")]
fn line_breaks(block: &[u8]) -> u64 {
    let in_vector = |vector| u64::from(breaks_in_vector(vector).to_bitmask());
    let (vectors, rest) = block.as_chunks::<16>();
    let mut breaks = 0;
    for (index, vector) in vectors.iter().enumerate() {
        breaks |= in_vector(vector) << (16 * index);
    }
    if let Some(last) = block.last_chunk::<16>() {
        // Over the end of the last vector: a bit may be set twice.
        breaks |= in_vector(last) << (block.len() - 16);
    } else {
        for (index, byte) in rest.iter().enumerate() {
            breaks |= u64::from(matches!(byte, b'\r' | b'\n')) << index;
        }
    }
    breaks
}

/// All ones for each byte that is a CR or LF.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is two instructions")]
fn breaks_in_vector(vector: &[u8; 16]) -> u8x16 {
    let vector = u8x16::new(*vector);
    vector.simd_eq(u8x16::splat(b'\r')) | vector.simd_eq(u8x16::splat(b'\n'))
}

/// Whether there is a CR or LF. Mostly there is none, so it does not stop at the first.
#[inline]
pub(crate) fn has_line_break(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk::<16>() else {
        return line_breaks(value) != 0;
    };
    let (vectors, _) = value.as_chunks::<16>();
    let breaks = vectors.iter().map(breaks_in_vector);
    breaks.fold(breaks_in_vector(last), BitOr::bitor).any()
}
