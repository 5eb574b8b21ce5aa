//! Scalars: values that contain no other values. Writing one needs no Python code.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

pub(super) const TEXT: u8 = 1;
const NUMBER: u8 = 1 << 1;
const REAL: u8 = 1 << 2;
const FLAG: u8 = 1 << 3;
const NONE: u8 = 1 << 4;

/// Return the kind of a scalar. A serializer writes all scalars of a kind in the same way. Return
/// `None` for any other value, and for scalars that may be written differently, such as infinities
/// and floats with an exponent.
pub(super) fn kind(value: &Bound<'_, PyAny>) -> Option<u8> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        text.to_str().is_ok().then_some(TEXT)
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        number.extract::<i64>().is_ok().then_some(NUMBER)
    } else if let Ok(real) = value.cast_exact::<PyFloat>() {
        // Releases of pydantic differ in how they write an exponent.
        let size = real.value().abs();
        (size == 0.0 || (1e-5..1e16).contains(&size)).then_some(REAL)
    } else if value.is_exact_instance_of::<PyBool>() {
        Some(FLAG)
    } else {
        value.is_none().then_some(NONE)
    }
}

/// The kinds of scalars that a slot may write in place. A slot learns a kind when the data was
/// encoded with such a value and the JSON was the same as in place.
pub(super) struct Scalars {
    known: AtomicU8,
    /// Whether one value says anything about others of its kind. It does not if Python code can
    /// look at the value, such as a serializer.
    can_learn: bool,
}

impl Scalars {
    pub(super) fn new(can_learn: bool) -> Self {
        Self {
            known: AtomicU8::new(0),
            can_learn,
        }
    }

    pub(super) fn can_learn(&self) -> bool {
        self.can_learn
    }

    #[inline]
    pub(super) fn knows(&self, kind: u8) -> bool {
        self.known.load(Ordering::Relaxed) & kind != 0
    }

    pub(super) fn learn(&self, kind: u8) {
        self.known.fetch_or(kind, Ordering::Relaxed);
    }
}
