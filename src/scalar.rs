//! JSON of a float and of a string, and how it is spelled. No Python in it.

use crate::output::Output;

/// How JSON is spelled: the same values in other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As `json.dumps` does when it is not told otherwise, so as FastAPI does: a space after every
    /// comma and colon, ASCII only.
    Fastapi,
    /// As orjson and pydantic do: no spaces, and UTF-8 wherever JSON allows it.
    Compact,
}

impl Spelling {
    // Each is a copy of a length that the compiler knows.

    #[inline]
    pub(crate) fn write_comma(self, out: &mut Output) {
        match self {
            Self::Fastapi => out.extend_from_slice(b", "),
            Self::Compact => out.push(b','),
        }
    }

    /// The brace of an object, or the comma after the member before.
    #[inline]
    pub(crate) fn write_before_key(self, is_first: bool, out: &mut Output) {
        if is_first {
            out.push(b'{');
        } else {
            self.write_comma(out);
        }
    }

    #[inline]
    pub(crate) fn write_colon(self, out: &mut Output) {
        match self {
            Self::Fastapi => out.extend_from_slice(b": "),
            Self::Compact => out.push(b':'),
        }
    }
}

/// Writes the shortest digits that make the same float; JSON has no word for what is not finite.
pub(crate) fn write_float(value: f64, spelling: Spelling, out: &mut Output) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value);
    // Between these Python lays the digits out in the same way.
    let is_repr = value == 0.0 || (1e-4..1e16).contains(&value.abs());
    if is_repr || spelling == Spelling::Compact {
        out.extend_from_slice(shortest.as_bytes());
    } else {
        write_float_as_repr(shortest, out);
    }
}

/// Writes a finite float as `float.__repr__` does.
fn write_float_as_repr(shortest: &str, out: &mut Output) {
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let (negative, mantissa) = mantissa
        .strip_prefix('-')
        .map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i32 = exponent.parse().unwrap_or_default();

    // The value is 0.DIGITS × 10^point.
    let mut digits = [0_u8; 40];
    let mut count = 0;
    let mut point = exponent;
    for (is_whole, byte) in whole
        .bytes()
        .map(|b| (true, b))
        .chain(fraction.bytes().map(|b| (false, b)))
    {
        let leading_zero = count == 0 && byte == b'0';
        if is_whole && !leading_zero {
            point += 1;
        } else if !is_whole && leading_zero {
            point -= 1;
        }
        if !leading_zero {
            digits[count] = byte;
            count += 1;
        }
    }
    while count > 0 && digits[count - 1] == b'0' {
        count -= 1;
    }
    if negative {
        out.push(b'-');
    }
    if count == 0 {
        out.extend_from_slice(b"0.0");
        return;
    }
    layout_float(&digits[..count], point, out);
}

/// Python's choice between `123.4` and `1.234e+20`: the latter from 1e16 up and below 1e-4.
fn layout_float(digits: &[u8], point: i32, out: &mut Output) {
    let zeros = |out: &mut Output, n: i32| (0..n).for_each(|_| out.push(b'0'));
    if point <= -4 || point > 16 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let exponent = point - 1;
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    } else if let Ok(whole @ 1..) = usize::try_from(point) {
        if digits.len() > whole {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(digits);
            zeros(out, point - i32::try_from(digits.len()).unwrap_or(point));
            out.extend_from_slice(b".0");
        }
    } else {
        out.extend_from_slice(b"0.");
        zeros(out, -point);
        out.extend_from_slice(digits);
    }
}

/// Writes `text` quoted. What has to be escaped depends on the spelling: everything outside
/// printable ASCII (DEL included, as in `json.dumps`), or only what JSON demands.
#[inline]
pub(crate) fn write_string(text: &str, spelling: Spelling, out: &mut Output) {
    write_between(*b"\"", text, *b"\"", spelling, out);
}

/// Writes the key of a member of an object, the colon behind it and the brace or comma before.
#[inline]
pub(crate) fn write_key(text: &str, is_first: bool, spelling: Spelling, out: &mut Output) {
    match (spelling, is_first) {
        (Spelling::Fastapi, true) => write_between(*b"{\"", text, *b"\": ", spelling, out),
        (Spelling::Fastapi, false) => write_between(*b", \"", text, *b"\": ", spelling, out),
        (Spelling::Compact, true) => write_between(*b"{\"", text, *b"\":", spelling, out),
        (Spelling::Compact, false) => write_between(*b",\"", text, *b"\":", spelling, out),
    }
}

/// Writes `text`, escaped, between its quotes: these come with what stands beside them, so that
/// a short text and all around it are one copy.
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

/// Appends all three and returns `true` if nothing in `bytes` has to be escaped; if it has, what
/// was appended is to be truncated.
///
/// Most strings are short. Two words that may overlap are sooner copied than by a call of
/// `memcpy`, and sooner looked at than byte by byte, in a loop that ends in a mispredicted branch
/// for every string.
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

/// Appends short `bytes`.
#[inline]
pub(crate) fn copy_short(bytes: &[u8], out: &mut Output) {
    let copied = copy_ends::<8, 0, 0>([], bytes, [], out).is_some()
        || copy_ends::<4, 0, 0>([], bytes, [], out).is_some()
        || copy_ends::<2, 0, 0>([], bytes, [], out).is_some();
    if !copied {
        out.extend_from_slice(bytes);
    }
}

/// Appends all three if there are between `N` and `2 * N` `bytes`: the first `N` of them and,
/// over their end, the last `N`. Returns the two.
#[inline]
fn copy_ends<const N: usize, const B: usize, const A: usize>(
    before: [u8; B],
    bytes: &[u8],
    after: [u8; A],
    out: &mut Output,
) -> Option<([u8; N], [u8; N])> {
    /// Two words, and what stands beside a key.
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
        // Characters to escape come in runs, as in CJK text.
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

/// Whether a byte is, or belongs to, a character that has to be escaped.
#[expect(clippy::needless_bitwise_bool, reason = "`||` would be a branch")]
const fn is_escaped<const ASCII_ONLY: bool>(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\') | (ASCII_ONLY & (byte > b'~'))
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// [`is_escaped`] for any of eight bytes. The highest bit of each holds the answer.
#[inline]
const fn has_escape<const ASCII_ONLY: bool>(word: u64) -> bool {
    const ONES: u64 = repeated(1);
    const HIGHEST: u64 = repeated(0x80);
    // A byte below `n` borrows in `word - n`; one that is not ASCII is left out by `!word`.
    // A borrow spoils only the bytes above one that counts itself.
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

/// Whether nothing in `bytes` has to be escaped.
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

/// Of this a compiler makes SIMD, since there is no branch in it.
#[inline]
fn is_clean_block<const ASCII_ONLY: bool>(block: &[u8; 16]) -> bool {
    let escaped = |any, byte: &u8| any | is_escaped::<ASCII_ONLY>(*byte);
    !block.iter().fold(false, escaped)
}

/// How many bytes from the start need no escape.
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

/// Writes a UTF-16 code unit as `\uXXXX`.
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

    fn float(value: f64, spelling: Spelling) -> String {
        let mut out = Output::default();
        write_float(value, spelling, &mut out);
        String::from_utf8(out.into()).unwrap()
    }

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
    fn floats_are_laid_out_as_pythons_repr_or_as_orjsons() {
        for (value, repr, compact) in [
            (0.0, "0.0", "0.0"),
            (-0.0, "-0.0", "-0.0"),
            (1.0, "1.0", "1.0"),
            (-1.5, "-1.5", "-1.5"),
            (0.1, "0.1", "0.1"),
            (0.0001, "0.0001", "0.0001"),
            (0.000_099_9, "9.99e-05", "0.0000999"),
            (-0.00001, "-1e-05", "-0.00001"),
            (0.000_123_45, "0.00012345", "0.00012345"),
            (123_456.0, "123456.0", "123456.0"),
            (1e15, "1000000000000000.0", "1000000000000000.0"),
            (
                9_999_999_999_999_998.0,
                "9999999999999998.0",
                "9999999999999998.0",
            ),
            (1e16, "1e+16", "1e+16"),
            (-1.5e16, "-1.5e+16", "-1.5e+16"),
            (1e22, "1e+22", "1e+22"),
            (1e100, "1e+100", "1e+100"),
            (1e-7, "1e-07", "1e-7"),
            (5e-324, "5e-324", "5e-324"),
            (
                f64::MAX,
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
            ),
            (f64::NAN, "null", "null"),
            (f64::INFINITY, "null", "null"),
        ] {
            assert_eq!(float(value, Spelling::Fastapi), repr);
            assert_eq!(float(value, Spelling::Compact), compact);
        }
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
