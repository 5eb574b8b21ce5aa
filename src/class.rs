//! What a class inherits from.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Whether `class` inherits from `base`. Runs no Python code, which `issubclass` does for pydantic
/// models, as does asking for `__mro__`.
///
/// `PyTypeMethods::mro` panics where there is none: a metaclass is called when its class is not
/// finished, and can show it.
pub(crate) fn has_base<T>(class: &Bound<'_, PyType>, base: &Py<T>) -> bool {
    let mro = catch_unwind(AssertUnwindSafe(|| class.mro()));
    mro.is_ok_and(|mro| mro.iter().any(|class| class.is(base)))
}
