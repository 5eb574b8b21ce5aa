//! The JSON of a Python value: the bytes of `json.dumps(jsonable_encoder(value))`, or the same
//! values in the compact spelling.
//!
//! Exact builtins are written here, straight into the output. Everything else (subclasses, models,
//! dates, …) goes to FastAPI's own encoder through [`crate::fallback`], and the result is written
//! here. So there is only one definition of their JSON.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::float::write_float;
use super::string::{copy_short, write_key, write_string};
use super::style::Spelling;
use crate::dict_items::DictItems;
use crate::output::Output;
use crate::{fallback, pydantic};

/// The depth up to which values are written here. Deeper values are left to Python, so that only
/// its recursion limit applies.
const MAX_DEPTH: usize = 96;

/// Append the JSON of `value` to `out`. After an error `out` may end with a part of it, which the
/// caller truncates.
///
/// # Errors
///
/// Whatever `jsonable_encoder` or `json.dumps` raises for a value that it cannot encode.
pub(crate) fn write(
    value: &Bound<'_, PyAny>,
    spelling: Spelling,
    out: &mut Output,
) -> PyResult<()> {
    write_at(value, 0, false, spelling, out)
}

/// As [`write`] for a value at some depth. `is_jsonable` is true for a result of
/// `jsonable_encoder`.
fn write_at(
    value: &Bound<'_, PyAny>,
    depth: usize,
    is_jsonable: bool,
    spelling: Spelling,
    out: &mut Output,
) -> PyResult<()> {
    let start = out.len();
    let mut writer = Writer {
        root: value,
        spelling,
        out,
        is_jsonable,
        python_ran: false,
    };
    match writer.value(value, depth) {
        Ok(()) => Ok(()),
        Err(Stop::Raised(error)) => Err(error),
        Err(Stop::WholeInPython) => {
            out.truncate(start);
            if is_jsonable {
                fallback::dump_json(value, spelling, out)
            } else {
                write_at(&fallback::jsonable(value)?, depth, true, spelling, out)
            }
        }
    }
}

/// The reason why the writer has stopped.
enum Stop {
    /// `jsonable_encoder` has to encode the whole document.
    WholeInPython,
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

struct Writer<'a, 'py> {
    root: &'a Bound<'py, PyAny>,
    spelling: Spelling,
    out: &'a mut Output,
    /// Whether the root is a result of `jsonable_encoder`. Then anything that is not a builtin is
    /// left to `json.dumps`. So is a tuple, which is the value of an enum here: FastAPI does not
    /// replace infinities in it.
    is_jsonable: bool,
    /// Whether Python code has encoded a value. It may have exhausted a generator, so the document
    /// cannot be encoded again from the start.
    python_ran: bool,
}

impl<'py> Writer<'_, 'py> {
    /// Write a value. Only the part for scalars is inlined into the loops.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loops of the writer call it")]
    fn value(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Result<(), Stop> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.string(text)?;
        } else if let Ok(number) = value.cast_exact::<PyInt>() {
            write_int(number, self.out)?;
        } else if value.is_none() {
            self.out.extend_from_slice(b"null");
        } else if let Ok(flag) = value.cast_exact::<PyBool>() {
            write_bool(flag.is_true(), self.out);
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            write_float(number.value(), self.spelling, self.out);
        } else {
            return self.other(value, depth);
        }
        Ok(())
    }

    /// Write a value that is not an exact scalar.
    #[inline(never)]
    fn other(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Result<(), Stop> {
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, depth)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.array(list.iter(), depth)
        } else if !self.is_jsonable
            && let Ok(tuple) = value.cast_exact::<PyTuple>()
        {
            self.array(tuple.iter(), depth)
        } else {
            self.python(value, depth)
        }
    }

    #[inline]
    fn string(&mut self, text: &Bound<'py, PyString>) -> PyResult<()> {
        match text.to_str() {
            Ok(text) => write_string(text, self.spelling, self.out),
            // UTF-8 cannot express a lone surrogate, but JSON can: it is escaped.
            Err(_) => return fallback::dump_json(text, self.spelling, self.out),
        }
        Ok(())
    }

    fn array(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> Result<(), Stop> {
        self.out.push(b'[');
        let depth = self.deeper(depth)?;
        let mut first = true;
        for item in items {
            if !first {
                self.spelling.write_comma(self.out);
            }
            first = false;
            self.value(&item, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> Result<(), Stop> {
        let depth = self.deeper(depth)?;
        let mut is_first = true;
        for item in DictItems::of(dict) {
            let (key, value) = item?;
            match self.key(&key, is_first)? {
                Key::Written => is_first = false,
                Key::Dropped => continue,
                // Two keys can become the same text, such as a `UUID` and its `str`. Then the
                // member has the position of the first and the value of the last.
                Key::Other => return Err(self.whole_in_python()),
            }
            self.value(&value, depth)?;
        }
        if is_first {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Write a key with its punctuation, as [`write_key`] does.
    #[inline]
    fn key(&mut self, key: &Bound<'py, PyAny>, is_first: bool) -> PyResult<Key> {
        let Ok(text) = key.cast_exact::<PyString>() else {
            return self.odd_key(key, is_first);
        };
        match text.to_str() {
            Ok(text) if text.starts_with("_sa") && !self.is_jsonable => return Ok(Key::Dropped),
            Ok(text) => write_key(text, is_first, self.spelling, self.out),
            Err(_) => return self.surrogate_key(text, is_first),
        }
        Ok(Key::Written)
    }

    /// As [`Self::key`], for a key that contains a lone surrogate.
    #[cold]
    fn surrogate_key(&mut self, text: &Bound<'py, PyString>, is_first: bool) -> PyResult<Key> {
        let py = text.py();
        let is_sa = text.call_method1(intern!(py, "startswith"), (intern!(py, "_sa"),))?;
        if is_sa.is_truthy()? && !self.is_jsonable {
            return Ok(Key::Dropped);
        }
        self.spelling.write_before_key(is_first, self.out);
        fallback::dump_json(text, self.spelling, self.out)?;
        self.spelling.write_colon(self.out);
        Ok(Key::Written)
    }

    /// As [`Self::key`], for a key that is not exactly a `str`. It becomes the text that
    /// `json.dumps` makes of it.
    #[cold]
    fn odd_key(&mut self, key: &Bound<'py, PyAny>, is_first: bool) -> PyResult<Key> {
        self.spelling.write_before_key(is_first, self.out);
        if self.is_jsonable
            && let Ok(text) = key.cast::<PyString>()
        {
            self.string(text)?;
            self.spelling.write_colon(self.out);
            return Ok(Key::Written);
        }
        let out = &mut *self.out;
        out.push(b'"');
        if let Ok(number) = key.cast_exact::<PyInt>() {
            write_int(number, out)?;
        } else if let Ok(number) = key.cast_exact::<PyFloat>() {
            // FastAPI replaces infinities and NaN only in values, so a key is what `json.dumps`
            // makes of it.
            match number.value() {
                value if value.is_nan() => out.extend_from_slice(b"NaN"),
                f64::INFINITY => out.extend_from_slice(b"Infinity"),
                f64::NEG_INFINITY => out.extend_from_slice(b"-Infinity"),
                // A key is text, so the spelling does not apply to it.
                value => write_float(value, Spelling::Fastapi, out),
            }
        } else if let Ok(flag) = key.cast_exact::<PyBool>() {
            write_bool(flag.is_true(), out);
        } else if key.is_none() {
            out.extend_from_slice(b"null");
        } else {
            return Ok(Key::Other);
        }
        out.push(b'"');
        self.spelling.write_colon(out);
        Ok(Key::Written)
    }

    /// Write a value that needs Python code.
    fn python(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Result<(), Stop> {
        if self.is_jsonable {
            fallback::dump_json(value, self.spelling, self.out)?;
            return Ok(());
        }
        if !self.python_ran {
            if needs_python_whole(self.root, 0)? {
                return Err(Stop::WholeInPython);
            }
            self.python_ran = true;
        }
        // `jsonable_encoder` dumps a model and then encodes the result.
        match if depth < MAX_DEPTH {
            pydantic::dump(value)?
        } else {
            None
        } {
            Some(dumped) => write_at(&dumped, depth + 1, false, self.spelling, self.out)?,
            None => write_at(
                &fallback::jsonable(value)?,
                depth,
                true,
                self.spelling,
                self.out,
            )?,
        }
        Ok(())
    }

    fn deeper(&self, depth: usize) -> Result<usize, Stop> {
        if depth < MAX_DEPTH {
            Ok(depth + 1)
        } else {
            Err(self.whole_in_python())
        }
    }

    fn whole_in_python(&self) -> Stop {
        if self.python_ran {
            // `needs_python_whole` has found no reason before, so there is a new one.
            Stop::Raised(PyRuntimeError::new_err(
                "data changed while it was being encoded",
            ))
        } else {
            Stop::WholeInPython
        }
    }
}

/// Return whether only `jsonable_encoder` can encode the whole of `value`, because of a key
/// ([`Key::Other`]) or its depth ([`MAX_DEPTH`]). This runs no Python code.
fn needs_python_whole(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<bool> {
    if depth > MAX_DEPTH {
        return Ok(true);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        for item in DictItems::of(dict) {
            let (key, value) = item?;
            if !is_plain_key(&key) || needs_python_whole(&value, depth + 1)? {
                return Ok(true);
            }
        }
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        for item in list {
            if needs_python_whole(&item, depth + 1)? {
                return Ok(true);
            }
        }
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        for item in tuple {
            if needs_python_whole(&item, depth + 1)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The result of writing a key.
enum Key {
    Written,
    /// The member is left out: FastAPI drops keys that begin with `_sa`, the state of `SQLAlchemy`.
    Dropped,
    /// The key is not an exact builtin. Only FastAPI's encoder knows its text, and whether another
    /// key has the same.
    Other,
}

fn is_plain_key(key: &Bound<'_, PyAny>) -> bool {
    key.cast_exact::<PyString>().is_ok()
        || key.cast_exact::<PyInt>().is_ok()
        || key.cast_exact::<PyFloat>().is_ok()
        || key.cast_exact::<PyBool>().is_ok()
        || key.is_none()
}

fn write_bool(flag: bool, out: &mut Output) {
    // Each branch writes a constant, so that the compiler knows the length of the copy.
    if flag {
        out.extend_from_slice(b"true");
    } else {
        out.extend_from_slice(b"false");
    }
}

fn write_int(number: &Bound<'_, PyInt>, out: &mut Output) -> PyResult<()> {
    if let Ok(small) = number.extract::<i64>() {
        copy_short(itoa::Buffer::new().format(small).as_bytes(), out);
    } else {
        // Python raises ValueError for more than `sys.get_int_max_str_digits()` digits, here as in
        // `json.dumps`.
        out.extend_from_slice(number.str()?.to_str()?.as_bytes());
    }
    Ok(())
}
