//! The two ways in which JSON is spelled, and the marks between its values. Knows no Python.

use crate::output::Output;

/// How JSON is spelled: the same values in other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
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
