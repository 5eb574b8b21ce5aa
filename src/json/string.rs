//! The JSON of a string, and of a key with its punctuation. Does not depend on Python.
//!
//! Most strings are short and contain nothing to escape. These are copied in machine words, without
//! a loop.

use super::style::Spelling;
use crate::output::Output;

/// Write `"<text>"`. The spelling decides what is escaped: everything that is not printable ASCII
/// (DEL included, as in `json.dumps`), or only what JSON requires.
#[inline]
pub fn write_string(text: &str, spelling: Spelling, out: &mut Output) {
    write_between(*b"\"", text, *b"\"", spelling, out);
}

/// Write the key of an object's member, with the brace or comma before it and the colon after it.
#[inline]
pub(crate) fn write_key(text: &str, is_first: bool, spelling: Spelling, out: &mut Output) {
    match (spelling, is_first) {
        (Spelling::Fastapi, true) => write_between(*b"{\"", text, *b"\": ", spelling, out),
        (Spelling::Fastapi, false) => write_between(*b", \"", text, *b"\": ", spelling, out),
        (Spelling::Compact, true) => write_between(*b"{\"", text, *b"\":", spelling, out),
        (Spelling::Compact, false) => write_between(*b",\"", text, *b"\":", spelling, out),
    }
}

/// Write `before`, the escaped `text` and `after`. `before` and `after` contain the quotes and the
/// punctuation, so that a short text is written together with them.
#[inline]
fn write_between<const B: usize, const A: usize>(
    before: [u8; B],
    text: &str,
    after: [u8; A],
    spelling: Spelling,
    out: &mut Output,
) {
    let start = out.len();
    let is_clean = match spelling {
        Spelling::Fastapi => copy_clean::<true, B, A>(before, text.as_bytes(), after, out),
        Spelling::Compact => copy_clean::<false, B, A>(before, text.as_bytes(), after, out),
    };
    if !is_clean {
        out.truncate(start);
        out.extend_from_slice(&before);
        write_escaped(text, spelling, out);
        out.extend_from_slice(&after);
    }
}

/// Append all three and return `true` if nothing in `bytes` has to be escaped. Otherwise return
/// `false`; the caller truncates whatever was appended.
///
/// Most strings are short. Copying them as two words, which may overlap, is cheaper than a call of
/// `memcpy`. Checking the two words is cheaper than a loop over the bytes, which would end with a
/// mispredicted branch for each string.
#[inline]
fn copy_clean<const ASCII_ONLY: bool, const B: usize, const A: usize>(
    before: [u8; B],
    bytes: &[u8],
    after: [u8; A],
    out: &mut Output,
) -> bool {
    const SPACES: u64 = repeated(b' ');
    let has_escape = has_escape::<ASCII_ONLY>;
    if let Some((first, last)) = copy_ends::<8, B, A>(before, bytes, after, out) {
        !has_escape(u64::from_ne_bytes(first)) && !has_escape(u64::from_ne_bytes(last))
    } else if let Some((first, last)) = copy_ends::<4, B, A>(before, bytes, after, out) {
        let [first, last] = [first, last].map(|end| u64::from(u32::from_ne_bytes(end)));
        !has_escape(first << 32 | last)
    } else if let Some((first, last)) = copy_ends::<2, B, A>(before, bytes, after, out) {
        let [first, last] = [first, last].map(|end| u64::from(u16::from_ne_bytes(end)));
        !has_escape(SPACES << 32 | first << 16 | last)
    } else {
        let is_clean = is_clean::<ASCII_ONLY>(bytes);
        if is_clean {
            out.extend_from_slice(&before);
            out.extend_from_slice(bytes);
            out.extend_from_slice(&after);
        }
        is_clean
    }
}

/// Append short `bytes`.
#[inline]
pub(crate) fn copy_short(bytes: &[u8], out: &mut Output) {
    let copied = copy_ends::<8, 0, 0>([], bytes, [], out).is_some()
        || copy_ends::<4, 0, 0>([], bytes, [], out).is_some()
        || copy_ends::<2, 0, 0>([], bytes, [], out).is_some();
    if !copied {
        out.extend_from_slice(bytes);
    }
}

/// Append all three if `bytes` has between `N` and `2 * N` bytes: its first `N` bytes and then its
/// last `N`, which may overlap. Return these two words.
#[inline]
fn copy_ends<const N: usize, const B: usize, const A: usize>(
    before: [u8; B],
    bytes: &[u8],
    after: [u8; A],
    out: &mut Output,
) -> Option<([u8; N], [u8; N])> {
    /// Enough for two words and the punctuation of a key.
    const ROOM: usize = 24;
    const { assert!(B + 2 * N + A <= ROOM) };
    if bytes.len() > 2 * N {
        return None;
    }
    let first = bytes.first_chunk::<N>()?;
    let last = bytes.last_chunk::<N>()?;
    let start = out.len();
    let end = B + bytes.len();
    let room: &mut [u8; ROOM] = out.extend_by()?;
    room[..B].copy_from_slice(&before);
    room[B..][..N].copy_from_slice(first);
    room[end - N..][..N].copy_from_slice(last);
    room[end..][..A].copy_from_slice(&after);
    out.truncate(start + end + A);
    Some((*first, *last))
}

#[inline(never)]
fn write_escaped(mut text: &str, spelling: Spelling, out: &mut Output) {
    while let Some(c) = text.chars().next() {
        let needs_escape = match spelling {
            Spelling::Fastapi => !(' '..='~').contains(&c),
            Spelling::Compact => c < ' ',
        };
        // Characters to escape often follow each other, as in CJK text, so they come first.
        if needs_escape || c == '"' || c == '\\' {
            match u16::try_from(u32::from(c)) {
                Ok(unit @ 0x7f..) => write_unit(unit, out),
                _ => write_escape(c, out),
            }
            text = &text[c.len_utf8()..];
        } else {
            let clean = match spelling {
                Spelling::Fastapi => clean_prefix::<true>(text.as_bytes()),
                Spelling::Compact => clean_prefix::<false>(text.as_bytes()),
            };
            out.extend_from_slice(&text.as_bytes()[..clean]);
            text = &text[clean..];
        }
    }
}

/// Return whether a byte belongs to a character that has to be escaped.
#[expect(clippy::needless_bitwise_bool, reason = "`||` would be a branch")]
const fn is_escaped<const ASCII_ONLY: bool>(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\') | (ASCII_ONLY & (byte > b'~'))
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Return whether [`is_escaped`] is true for any of eight bytes. The highest bit of each byte of
/// `found` holds the answer for it.
#[inline]
const fn has_escape<const ASCII_ONLY: bool>(word: u64) -> bool {
    const ONES: u64 = repeated(1);
    const HIGHEST: u64 = repeated(0x80);
    // `word - n` borrows for each byte below `n`, and `!word` excludes bytes that are not ASCII.
    // A borrow changes only the bytes above, and the byte that borrows is found anyway.
    let control = word.wrapping_sub(repeated(b' ')) & !word;
    let quote = word ^ repeated(b'"');
    let backslash = word ^ repeated(b'\\');
    let mut found =
        control | quote.wrapping_sub(ONES) & !quote | backslash.wrapping_sub(ONES) & !backslash;
    if ASCII_ONLY {
        // DEL becomes 0x80.
        found |= word | word.wrapping_add(ONES);
    }
    found & HIGHEST != 0
}

/// Return whether nothing in `bytes` has to be escaped.
#[inline]
fn is_clean<const ASCII_ONLY: bool>(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let is_clean = is_clean_block::<ASCII_ONLY>;
    blocks.iter().all(is_clean)
        && match bytes.last_chunk() {
            Some(last) => is_clean(last),
            None => !rest.iter().any(|byte| is_escaped::<ASCII_ONLY>(*byte)),
        }
}

/// As [`is_clean`] for a block. It has no branch, so the compiler turns it into SIMD.
#[inline]
fn is_clean_block<const ASCII_ONLY: bool>(block: &[u8; 16]) -> bool {
    let escaped = |any, byte: &u8| any | is_escaped::<ASCII_ONLY>(*byte);
    !block.iter().fold(false, escaped)
}

/// Return how many bytes from the start need no escape.
fn clean_prefix<const ASCII_ONLY: bool>(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<16>();
    let clean = |block: &&[u8; 16]| is_clean_block::<ASCII_ONLY>(block);
    let start = 16 * blocks.iter().take_while(clean).count();
    let rest = &bytes[start..];
    let escaped = |byte: &u8| is_escaped::<ASCII_ONLY>(*byte);
    start + rest.iter().position(escaped).unwrap_or(rest.len())
}

fn write_escape(c: char, out: &mut Output) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write_unit(*unit, out);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Write a UTF-16 code unit as `\uXXXX`.
#[inline]
fn write_unit(unit: u16, out: &mut Output) {
    const HEX: &[[u8; 2]; 256] = &hex_of_bytes();
    let [high, low] = unit.to_be_bytes().map(|byte| HEX[usize::from(byte)]);
    out.extend_from_slice(&[b'\\', b'u', high[0], high[1], low[0], low[1]]);
}

const fn hex_of_bytes() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str, spelling: Spelling) -> String {
        let mut out = Output::default();
        write_string(text, spelling, &mut out);
        String::from_utf8(out.into()).unwrap()
    }

    fn key(text: &str, is_first: bool, spelling: Spelling) -> String {
        let mut out = Output::from(b"...".to_vec());
        write_key(text, is_first, spelling, &mut out);
        String::from_utf8(out.into()).unwrap()
    }

    #[test]
    fn strings_are_escaped_to_printable_ascii_or_as_little_as_possible() {
        for (text, ascii, compact) in [
            ("", r#""""#, r#""""#),
            ("tok", r#""tok""#, r#""tok""#),
            ("\"\\/", r#""\"\\/""#, r#""\"\\/""#),
            ("\u{8}\t\n\u{c}\r", r#""\b\t\n\f\r""#, r#""\b\t\n\f\r""#),
            (
                "\0\u{1f}\u{7f}",
                r#""\u0000\u001f\u007f""#,
                "\"\\u0000\\u001f\u{7f}\"",
            ),
            ("é中\u{2028}", r#""\u00e9\u4e2d\u2028""#, "\"é中\u{2028}\""),
            ("😀", r#""\ud83d\ude00""#, "\"😀\""),
            (
                "0123456789abcdef\n0123456789abcdefg",
                r#""0123456789abcdef\n0123456789abcdefg""#,
                r#""0123456789abcdef\n0123456789abcdefg""#,
            ),
        ] {
            assert_eq!(string(text, Spelling::Fastapi), ascii);
            assert_eq!(string(text, Spelling::Compact), compact);
        }
    }

    #[test]
    fn a_key_is_a_string_with_its_neighbours_in_any_length() {
        for len in 0..70 {
            for clean_or_not in ["x", "\n", "é", "\""] {
                let text = clean_or_not.repeat(len);
                for (spelling, is_first, before, after) in [
                    (Spelling::Fastapi, true, "{", ": "),
                    (Spelling::Fastapi, false, ", ", ": "),
                    (Spelling::Compact, true, "{", ":"),
                    (Spelling::Compact, false, ",", ":"),
                ] {
                    let quoted = string(&text, spelling);
                    assert_eq!(
                        key(&text, is_first, spelling),
                        format!("...{before}{quoted}{after}")
                    );
                }
            }
        }
    }

    #[test]
    fn one_character_is_escaped_at_any_place_in_a_string_of_any_length() {
        for len in 0..70 {
            let clean = "x".repeat(len);
            assert_eq!(string(&clean, Spelling::Fastapi), format!("\"{clean}\""));
            assert_eq!(string(&clean, Spelling::Compact), format!("\"{clean}\""));
            for (c, ascii, compact) in [
                ("\"", r#"\""#, r#"\""#),
                ("\\", r"\\", r"\\"),
                ("\0", r"\u0000", r"\u0000"),
                ("\u{1f}", r"\u001f", r"\u001f"),
                (" ", " ", " "),
                ("!", "!", "!"),
                ("#", "#", "#"),
                ("[", "[", "["),
                ("]", "]", "]"),
                ("~", "~", "~"),
                ("\u{7f}", r"\u007f", "\u{7f}"),
                ("\u{80}", r"\u0080", "\u{80}"),
                ("\u{a2}", r"\u00a2", "\u{a2}"),
                ("\u{ffff}", r"\uffff", "\u{ffff}"),
                ("\u{10ffff}", r"\udbff\udfff", "\u{10ffff}"),
            ] {
                for at in 0..=len {
                    let (before, after) = clean.split_at(at);
                    let text = format!("{before}{c}{after}");
                    let quoted = |c| format!("\"{before}{c}{after}\"");
                    assert_eq!(string(&text, Spelling::Fastapi), quoted(ascii));
                    assert_eq!(string(&text, Spelling::Compact), quoted(compact));
                }
            }
        }
    }
}
