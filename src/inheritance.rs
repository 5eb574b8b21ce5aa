//! Which classes inherit from a given one, asked without running Python code.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A class that others inherit from.
pub(crate) struct Base {
    class: Py<PyType>,
    /// `type.__subclasscheck__` of it. `issubclass`, and asking for `__mro__`, run the code of a
    /// metaclass, as pydantic's models have one; `PyO3`'s own `mro` panics where the metaclass
    /// shows a class that is not finished.
    subclass_check: Py<PyAny>,
}

impl Base {
    pub(crate) fn new(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let types = py.get_type::<PyType>();
        let check = types.getattr(intern!(py, "__subclasscheck__"))?;
        let bound = check.call_method1(intern!(py, "__get__"), (class, &types))?;
        Ok(Self {
            class: class.clone().unbind(),
            subclass_check: bound.unbind(),
        })
    }

    pub(crate) fn class(&self) -> &Py<PyType> {
        &self.class
    }

    /// Whether `class` inherits from it, or is it.
    ///
    /// # Errors
    ///
    /// None that a class can cause.
    pub(crate) fn is_inherited_by(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let answer = self.subclass_check.bind(class.py()).call1((class,))?;
        answer.is_truthy()
    }
}
