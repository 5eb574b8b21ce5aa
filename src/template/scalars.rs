//! Values without anything inside of them, which need no Python to be written.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

pub(super) const TEXT: u8 = 1;
const NUMBER: u8 = 1 << 1;
const REAL: u8 = 1 << 2;
const FLAG: u8 = 1 << 3;
const NONE: u8 = 1 << 4;

/// The kind of a scalar: one whose JSON a serializer chooses by its type alone. `None` where
/// `value` is none, or is one that is spelled in a way of its own, as infinities are.
pub(super) fn kind(value: &Bound<'_, PyAny>) -> Option<u8> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        text.to_str().is_ok().then_some(TEXT)
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        number.extract::<i64>().is_ok().then_some(NUMBER)
    } else if let Ok(real) = value.cast_exact::<PyFloat>() {
        real.value().is_finite().then_some(REAL)
    } else if value.is_exact_instance_of::<PyBool>() {
        Some(FLAG)
    } else {
        value.is_none().then_some(NONE)
    }
}

/// The kinds of scalars that were seen to be the same JSON in a slot as in the encoded whole.
pub(super) struct Scalars {
    known: AtomicU8,
    /// Whether one that was seen says something about others of its kind.
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
