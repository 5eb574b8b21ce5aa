//! The event-stream format: writing fields, and checking which values a field can carry.
//!
//! The code takes bytes and writes bytes. It does not depend on Python, and it does not decide what
//! the value of a field is (JSON, text, a Python object).
//!
//! Quotations are from the WHATWG HTML standard, "Server-sent events", sections "Parsing an event
//! stream" and "Interpreting an event stream".

use std::fmt;
use std::marker::PhantomData;

use memchr::{memchr, memrchr};

use crate::lines::{append_lines, has_line_break};
use crate::output::Output;

/// The keep-alive comment, `: ping` and a blank line. Every parser ignores it.
pub const PING: &[u8] = b": ping\n\n";

/// A value that a field cannot carry. The messages are FastAPI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// A line break in `event`: the rest would be another line.
    EventLineBreak,
    /// A line break in `id`: the rest would be another line.
    IdLineBreak,
    /// U+0000 in `id`. "If the field value does not contain U+0000 NULL, then set the last event ID
    /// buffer to the field value. Otherwise, ignore the field."
    IdNull,
    /// A negative `retry`.
    RetryNegative,
    /// A `retry` that is not a whole number. "If the field value consists of only ASCII digits,
    /// then interpret the field value as an integer in base ten, and set the event stream's
    /// reconnection time to that integer. Otherwise, ignore the field."
    RetryNotInteger,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventLineBreak => "SSE 'event' must be a single line",
            Self::IdLineBreak => "SSE 'id' must be a single line",
            Self::IdNull => "SSE 'id' must not contain null characters",
            Self::RetryNegative => "SSE 'retry' must be greater than or equal to 0",
            Self::RetryNotInteger => "SSE 'retry' must be an integer",
        })
    }
}

impl std::error::Error for FieldError {}

/// The line end of a frame. It is a type parameter, so that it is a constant in the compiled code.
pub trait LineEnd {
    /// The line end.
    const END: &'static [u8];
    /// The line end and the start of the next line of a comment.
    const COMMENT: &'static [u8];
    /// The line end and the start of the next line of `data`.
    const DATA: &'static [u8];
}

/// U+000A LINE FEED, the line end of FastAPI.
pub enum Lf {}

/// U+000D CARRIAGE RETURN.
pub enum Cr {}

/// U+000D U+000A, the default line end of sse-starlette.
pub enum CrLf {}

impl LineEnd for Lf {
    const END: &'static [u8] = b"\n";
    const COMMENT: &'static [u8] = b"\n: ";
    const DATA: &'static [u8] = b"\ndata: ";
}

impl LineEnd for Cr {
    const END: &'static [u8] = b"\r";
    const COMMENT: &'static [u8] = b"\r: ";
    const DATA: &'static [u8] = b"\rdata: ";
}

impl LineEnd for CrLf {
    const END: &'static [u8] = b"\r\n";
    const COMMENT: &'static [u8] = b"\r\n: ";
    const DATA: &'static [u8] = b"\r\ndata: ";
}

/// Appends the frame of one event to an output: its fields, then a blank line.
///
/// Fields are written in the order of the calls. FastAPI's order is comment, event, data, id,
/// retry. When a call fails, the caller truncates the output to the start of the frame.
pub struct FrameWriter<'a, L = Lf> {
    out: &'a mut Output,
    line_end: PhantomData<L>,
}

impl<'a> FrameWriter<'a> {
    /// Start a frame at the end of `out`.
    pub fn new(out: &'a mut Output) -> Self {
        Self::with_line_end(out)
    }
}

impl<'a, L: LineEnd> FrameWriter<'a, L> {
    /// Start a frame whose lines end with `L`.
    pub fn with_line_end(out: &'a mut Output) -> Self {
        let line_end = PhantomData;
        Self { out, line_end }
    }

    /// Write `: <line>` for each line of `text`. "If the line starts with a U+003A COLON character
    /// (:): Ignore the line."
    pub fn comment(&mut self, text: &str) {
        self.lines(L::COMMENT, text.as_bytes());
    }

    /// Write `event: <name>`, the event type that `addEventListener` listens for.
    ///
    /// # Errors
    ///
    /// As [`check_event`].
    pub fn event(&mut self, name: &str) -> Result<(), FieldError> {
        check_event(name)?;
        self.line(b"event: ", name.as_bytes());
        Ok(())
    }

    /// Write `data: <line>` for each line of `text`. The parser joins the lines again: "Append the
    /// field value to the data buffer, then append a single U+000A LINE FEED (LF) character to the
    /// data buffer."
    pub fn data(&mut self, text: &[u8]) {
        self.lines(L::DATA, text);
    }

    /// As [`Self::data`], for JSON that other code has written. It has no line break unless it is
    /// indented, so asking once whether there is one is cheaper than searching for each.
    pub fn json(&mut self, json: &[u8]) {
        if has_line_break(json) {
            self.data(json);
        } else {
            self.line(b"data: ", json);
        }
    }

    /// Write a line with `data: ` and whatever `write` appends, which must not contain a line
    /// break.
    ///
    /// # Errors
    ///
    /// The errors of `write`.
    pub fn data_line<E>(
        &mut self,
        write: impl FnOnce(&mut Output) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.extend_from_slice(b"data: ");
        write(self.out)?;
        self.out.extend_from_slice(L::END);
        Ok(())
    }

    /// Write `id: <id>`, which a browser sends back in `Last-Event-ID` when it reconnects.
    ///
    /// # Errors
    ///
    /// As [`check_id`].
    pub fn id(&mut self, id: &str) -> Result<(), FieldError> {
        check_id(id)?;
        self.line(b"id: ", id.as_bytes());
        Ok(())
    }

    /// Write `retry: <digits>`, the milliseconds before a browser reconnects. They are passed as
    /// text, because a Python integer can be larger than a machine integer.
    ///
    /// # Errors
    ///
    /// As [`check_retry`].
    pub fn retry(&mut self, digits: &str) -> Result<(), FieldError> {
        check_retry(digits)?;
        self.line(b"retry: ", digits.as_bytes());
        Ok(())
    }

    /// Write a line with `<prefix><value>`, without the line breaks in `value`. sse-starlette
    /// removes them where FastAPI raises an error.
    pub fn line_without_breaks(&mut self, prefix: &[u8], value: &str) {
        self.out.extend_from_slice(prefix);
        append_lines(self.out, b"", value.as_bytes());
        self.out.extend_from_slice(L::END);
    }

    /// Return the position in the output after the fields that were written so far.
    pub fn end_of_fields(&self) -> usize {
        self.out.len()
    }

    /// Write the blank line. "If the line is empty (a blank line): Dispatch the event".
    pub fn end(self) {
        self.out.extend_from_slice(L::END);
    }

    /// Write a line with `<prefix><value>`.
    fn line<const N: usize>(&mut self, prefix: &[u8; N], value: &[u8]) {
        self.out.reserve(N + value.len() + 2 * L::END.len());
        self.out.extend_from_slice(prefix);
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(L::END);
    }

    /// Write a line with the prefix for each line of `value`.
    ///
    /// "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF)
    /// character pair, a single U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE
    /// RETURN (CR) character." The text is split there and nowhere else (not at U+2028, VT, FF or
    /// NEL). The text after the last line break is a line too, even if it is empty.
    ///
    /// `prefix` begins with the line end before it, so it can replace a line break as it is.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "where the length of the prefix is known, copying it is one instruction"
    )]
    fn lines(&mut self, prefix: &[u8], value: &[u8]) {
        let out = &mut *self.out;
        // There is room for a line break every 50 bytes. To grow step by step would copy a large
        // text several times.
        out.reserve(value.len() + value.len() / 8 + prefix.len() + L::END.len());
        out.extend_from_slice(&prefix[L::END.len()..]);
        append_lines(out, prefix, value);
        out.extend_from_slice(L::END);
    }
}

/// Check that `name` can be the type of an event.
///
/// # Errors
///
/// [`FieldError::EventLineBreak`].
pub fn check_event(name: &str) -> Result<(), FieldError> {
    if has_line_break(name.as_bytes()) {
        Err(FieldError::EventLineBreak)
    } else {
        Ok(())
    }
}

/// Check that `id` can be the id of an event.
///
/// # Errors
///
/// [`FieldError::IdNull`] or [`FieldError::IdLineBreak`]. Of both, NUL comes first, as in FastAPI.
pub fn check_id(id: &str) -> Result<(), FieldError> {
    if memchr(0, id.as_bytes()).is_some() {
        Err(FieldError::IdNull)
    } else if has_line_break(id.as_bytes()) {
        Err(FieldError::IdLineBreak)
    } else {
        Ok(())
    }
}

/// Check that `digits` can be a reconnection time.
///
/// # Errors
///
/// [`FieldError::RetryNegative`] or [`FieldError::RetryNotInteger`].
pub fn check_retry(digits: &str) -> Result<(), FieldError> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        Err(FieldError::RetryNotInteger)
    } else if unsigned.len() < digits.len() {
        Err(FieldError::RetryNegative)
    } else {
        Ok(())
    }
}

/// The reason why bytes are not complete events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// There are no bytes.
    Empty,
    /// "Event streams in this format must always be encoded as UTF-8".
    NotUtf8,
    /// "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any." It does
    /// so only at the start of a stream. Anywhere else the mark becomes part of a field name.
    ByteOrderMark,
    /// No blank line at the end. The next event would become a part of the last one.
    NoBlankLine,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an event must not be empty",
            Self::NotUtf8 => "an event must be UTF-8",
            Self::ByteOrderMark => "an event must not begin with a byte order mark",
            Self::NoBlankLine => "an event must end with a blank line",
        })
    }
}

impl std::error::Error for FrameError {}

/// Check that `frames` are complete events, so that they can be sent between any two frames. Their
/// fields are not checked, because a parser accepts any: "Otherwise: The field is ignored."
///
/// # Errors
///
/// The first reason why they are not.
pub fn check_frames(frames: &[u8]) -> Result<(), FrameError> {
    let text = str::from_utf8(frames).map_err(|_| FrameError::NotUtf8)?;
    if text.is_empty() {
        return Err(FrameError::Empty);
    }
    if text.starts_with('\u{feff}') {
        return Err(FrameError::ByteOrderMark);
    }
    if ends_with_blank_line(frames) {
        Ok(())
    } else {
        Err(FrameError::NoBlankLine)
    }
}

/// Return the position after the last LF in `text`, or after the last character that is certainly
/// complete. It is where to cut a longer text.
pub fn end_of_line_or_character(text: &[u8]) -> usize {
    if let Some(at) = memrchr(b'\n', text) {
        return at + 1;
    }
    // A character has at most four bytes. All but the first begin with the bits 10.
    let is_inside = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let inside = text
        .iter()
        .rev()
        .take(3)
        .take_while(|byte| is_inside(byte))
        .count();
    match text.len().checked_sub(inside + 1).map(|first| text[first]) {
        // The last character may be complete. Then the text is cut before it all the same: it is
        // sent with the rest.
        Some(0b1100_0000..) => (text.len() - inside - 1).max(1),
        _ => text.len(),
    }
}

/// Return whether `text` ends with a blank line, as an event does.
pub fn ends_with_blank_line(text: &[u8]) -> bool {
    let without_line_end = |text: &'_ [u8]| match text {
        [lines @ .., b'\r', b'\n'] | [lines @ .., b'\r' | b'\n'] => Some(lines.len()),
        _ => None,
    };
    without_line_end(text).is_some_and(|length| {
        let lines = &text[..length];
        lines.is_empty() || without_line_end(lines).is_some()
    })
}

/// Return whether `text` can begin a stream: with a comment, a blank line, or the name of a field
/// of the standard, of which it may hold only a part.
pub(crate) fn can_begin_event(text: &str) -> bool {
    const FIELDS: [&str; 5] = ["", "data", "event", "id", "retry"];
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.split_once([':', '\r', '\n']) {
        Some((name, _)) => FIELDS.contains(&name),
        None => FIELDS.iter().any(|field| field.starts_with(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::DataLines;

    #[test]
    fn frames_end_with_a_blank_line() {
        for text in [
            "data: x\n\n",
            "data: x\r\r",
            "data: x\r\n\r\n",
            "data: x\n\r",
            "data: x\n\r\n",
            "data: x\r\n\n",
            "a\n\nb\n\n",
            ": ping\n\n",
            "\n",
            "\r\n",
            "\n\n",
        ] {
            assert_eq!(check_frames(text.as_bytes()), Ok(()), "{text:?}");
        }
        for text in ["data: x", "data: x\n", "data: x\r\n", "data: x\r", "\n\nx"] {
            assert_eq!(
                check_frames(text.as_bytes()),
                Err(FrameError::NoBlankLine),
                "{text:?}"
            );
        }
        assert_eq!(check_frames(b""), Err(FrameError::Empty));
        assert_eq!(check_frames(b"data: \xff\n\n"), Err(FrameError::NotUtf8));
        assert_eq!(
            check_frames("\u{feff}data: x\n\n".as_bytes()),
            Err(FrameError::ByteOrderMark)
        );
    }

    fn frame(write: impl FnOnce(&mut FrameWriter<'_>)) -> String {
        let mut out = Output::default();
        let mut frame = FrameWriter::new(&mut out);
        write(&mut frame);
        frame.end();
        String::from_utf8(out.into()).unwrap()
    }

    /// Split `text` by the rule of the standard, one character at a time.
    fn naive_lines(text: &str) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut previous = ' ';
        for c in text.chars() {
            match c {
                '\n' if previous == '\r' => {}
                '\r' | '\n' => lines.push(String::new()),
                other => lines.last_mut().unwrap().push(other),
            }
            previous = c;
        }
        lines
    }

    #[test]
    fn fields_are_written_in_the_order_of_the_calls() {
        let written = frame(|f| {
            f.comment("c");
            f.event("e").unwrap();
            f.data(b"d");
            f.id("i").unwrap();
            f.retry("5000").unwrap();
        });
        assert_eq!(written, ": c\nevent: e\ndata: d\nid: i\nretry: 5000\n\n");
    }

    #[test]
    fn lines_end_with_what_the_frame_is_given() {
        fn written<L: LineEnd>() -> String {
            let mut out = Output::default();
            let mut frame = FrameWriter::<L>::with_line_end(&mut out);
            frame.comment("a\r\nb");
            frame.event("e").unwrap();
            frame.data(b"1\n2\r");
            frame.json(b"{}");
            frame.line_without_breaks(b"id: ", "\r\ni\rd\n");
            frame.end();
            String::from_utf8(out.into()).unwrap()
        }
        let expected = ": a\n: b\nevent: e\ndata: 1\ndata: 2\ndata: \ndata: {}\nid: id\n\n";
        assert_eq!(written::<Lf>(), expected);
        assert_eq!(written::<Cr>(), expected.replace('\n', "\r"));
        assert_eq!(written::<CrLf>(), expected.replace('\n', "\r\n"));
    }

    #[test]
    fn a_frame_without_fields_is_a_blank_line() {
        assert_eq!(frame(|_| {}), "\n");
    }

    #[test]
    fn data_is_split_at_crlf_cr_and_lf_only() {
        for (text, expected) in [
            ("", "data: \n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\n\r", "data: a\ndata: \ndata: \n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("\n", "data: \ndata: \n\n"),
            (
                "a\u{2028}b\u{b}c\u{c}d\u{85}e",
                "data: a\u{2028}b\u{b}c\u{c}d\u{85}e\n\n",
            ),
        ] {
            assert_eq!(frame(|f| f.data(text.as_bytes())), expected, "{text:?}");
            assert_eq!(frame(|f| f.json(text.as_bytes())), expected, "{text:?}");
        }
    }

    #[test]
    fn a_break_is_seen_at_any_place_of_a_text_of_any_length() {
        for len in 0..150 {
            let text = "x".repeat(len);
            assert_eq!(
                frame(|f| f.json(text.as_bytes())),
                format!("data: {text}\n\n")
            );
            assert_eq!(check_event(&text), Ok(()));
            for at in 0..=len {
                let (before, after) = text.split_at(at);
                for line_break in ["\r", "\n", "\r\n"] {
                    let text = format!("{before}{line_break}{after}");
                    let expected = format!("data: {before}\ndata: {after}\n\n");
                    assert_eq!(frame(|f| f.json(text.as_bytes())), expected);
                    assert_eq!(frame(|f| f.data(text.as_bytes())), expected);
                    assert_eq!(check_event(&text), Err(FieldError::EventLineBreak));
                }
            }
        }
    }

    #[test]
    fn the_size_of_a_large_text_is_known_before_it_is_written() {
        // Lengths at and around the block sizes of searching, counting and writing.
        for len in [
            0, 1, 14, 15, 16, 62, 63, 64, 65, 4078, 4079, 4080, 4081, 8192,
        ] {
            for line_break in ["", "\r", "\n", "\r\n", "\n\r", "\r\r\n\n"] {
                for after in ["", "x", "\r\nx\n"] {
                    let text = format!("{}{line_break}{after}", "x".repeat(len));
                    let mut written = Vec::new();
                    let lines = DataLines::of(text.as_bytes());
                    lines.write(&mut written).unwrap();
                    assert_eq!(written.len(), lines.size());
                    assert_eq!(
                        lines.pieces().map(|pieces| pieces.concat()),
                        DataLines::one(text.as_bytes()).map(|_| written.clone())
                    );
                    written.push(b'\n');
                    assert_eq!(written, frame(|f| f.data(text.as_bytes())).as_bytes());
                }
            }
        }
    }

    #[test]
    fn more_line_breaks_than_are_counted_at_once_are_counted() {
        for text in ["\r", "\n", "\r\n"] {
            let text = text.repeat(5000);
            let size = DataLines::of(text.as_bytes()).size();
            assert_eq!(size, 5001 * "data: \n".len());
        }
    }

    #[test]
    fn every_short_text_splits_as_the_naive_rule_does() {
        let alphabet = ['a', '\r', '\n', ':'];
        let mut texts = vec![String::new()];
        let mut checked = 0;
        for _ in 0..8 {
            let mut longer = Vec::new();
            for text in &texts {
                for c in alphabet {
                    longer.push(format!("{text}{c}"));
                }
            }
            for text in &longer {
                let expected = |prefix: &str| {
                    let lines = naive_lines(text).join(&format!("\n{prefix}"));
                    format!("{prefix}{lines}\n\n")
                };
                assert_eq!(
                    frame(|f| f.data(text.as_bytes())),
                    expected("data: "),
                    "{text:?}"
                );
                assert_eq!(frame(|f| f.comment(text)), expected(": "), "{text:?}");
                let size = expected("data: ").len() - 1;
                assert_eq!(DataLines::of(text.as_bytes()).size(), size, "{text:?}");
                assert_eq!(
                    check_event(text).is_ok(),
                    !text.contains(['\r', '\n']),
                    "{text:?}"
                );
                checked += 1;
            }
            texts = longer;
        }
        assert_eq!(checked, (4_usize.pow(9) - 4) / 3);
    }

    #[test]
    fn event_and_id_refuse_what_would_break_the_line() {
        let mut out = Output::default();
        let mut frame = FrameWriter::new(&mut out);
        for text in ["a\nb", "a\rb", "a\r\nb", "\n", "a\n"] {
            assert_eq!(
                frame.event(text),
                Err(FieldError::EventLineBreak),
                "{text:?}"
            );
            assert_eq!(frame.id(text), Err(FieldError::IdLineBreak), "{text:?}");
        }
        assert_eq!(frame.id("a\0"), Err(FieldError::IdNull));
        assert_eq!(frame.id("a\0\n"), Err(FieldError::IdNull));
        assert_eq!(frame.event("a\0"), Ok(()));
        assert_eq!(&out[..], b"event: a\0\n");
    }

    #[test]
    fn retry_is_ascii_digits() {
        assert_eq!(
            frame(|f| f.retry("100000000000000000000").unwrap()),
            "retry: 100000000000000000000\n\n"
        );
        let mut out = Output::default();
        let mut frame = FrameWriter::new(&mut out);
        assert_eq!(frame.retry("-1"), Err(FieldError::RetryNegative));
        for text in ["", "-", "1.5", "+1", "\u{661}", "1\n"] {
            assert_eq!(
                frame.retry(text),
                Err(FieldError::RetryNotInteger),
                "{text:?}"
            );
        }
        assert!(out.is_empty());
    }

    #[test]
    fn what_an_event_can_begin_with() {
        for text in [
            "",
            "d",
            "data",
            "data: 1",
            "data\n\n",
            ":",
            ": ping",
            "\n",
            "\r\n",
            "id:1\n",
            "retry: 3",
            "event: a\n",
            "\u{feff}data: 1",
        ] {
            assert!(can_begin_event(text), "{text:?}");
        }
        for text in [
            "the",
            "data 1",
            "{\"a\": 1}",
            "dat\n",
            "Data: 1",
            " data: 1",
            "hello\n\n",
        ] {
            assert!(!can_begin_event(text), "{text:?}");
        }
    }

    #[test]
    fn errors_speak_fastapis_words() {
        assert_eq!(
            FieldError::EventLineBreak.to_string(),
            "SSE 'event' must be a single line"
        );
        assert_eq!(
            FieldError::IdLineBreak.to_string(),
            "SSE 'id' must be a single line"
        );
        assert_eq!(
            FieldError::IdNull.to_string(),
            "SSE 'id' must not contain null characters"
        );
    }
}
