//! The two spellings of JSON, and its punctuation in each. Does not depend on Python.

use crate::output::Output;

/// The spelling of JSON. The same values have different bytes in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// The default of `json.dumps`, which FastAPI uses: a space after each comma and colon, and
    /// ASCII only.
    Fastapi,
    /// The spelling of orjson and pydantic: no spaces, and UTF-8 wherever JSON allows it.
    Compact,
}

// Each branch writes a constant, so that the compiler knows the length of the copy.
impl Spelling {
    /// Write the comma between two values.
    #[inline]
    pub(crate) fn write_comma(self, out: &mut Output) {
        match self {
            Self::Fastapi => out.extend_from_slice(b", "),
            Self::Compact => out.push(b','),
        }
    }

    /// Write the brace that opens an object, or the comma after the member before.
    #[inline]
    pub(crate) fn write_before_key(self, is_first: bool, out: &mut Output) {
        if is_first {
            out.push(b'{');
        } else {
            self.write_comma(out);
        }
    }

    /// Write the colon after a key.
    #[inline]
    pub(crate) fn write_colon(self, out: &mut Output) {
        match self {
            Self::Fastapi => out.extend_from_slice(b": "),
            Self::Compact => out.push(b':'),
        }
    }
}
