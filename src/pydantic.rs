//! The fast paths through pydantic: calling a model's serializer without the Python method around
//! it, and filling an event without its validator.
//!
//! Each path is tried once, at import. It is not used if its result differs, for example because an
//! application has wrapped a method of `BaseModel` or because pydantic has changed. The plain path
//! gives the same bytes, and a warning says what is slower.

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PySet, PyType};

use crate::dict_items::DictItems;
use crate::inheritance::Base;

/// Return `model.model_dump(mode="json", by_alias=True)`, which is how `jsonable_encoder` calls it.
/// Return `None` if `value` is not a model, or if its class defines its own `model_dump`.
///
/// # Errors
///
/// Whatever the serializer raises.
pub(crate) fn dump<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    let Some(dump) = &FastPaths::of(py)?.dump else {
        return Ok(None);
    };
    if !dump.base.is_inherited_by(&value.get_type())? {
        return Ok(None);
    }
    let Some(method) = value.getattr_opt(intern!(py, "model_dump"))? else {
        return Ok(None);
    };
    match model_of(&method, &dump.method)? {
        Some(model) => dump.call(&model).map(Some),
        None => Ok(None),
    }
}

/// Return the bytes of `model_dump_json()`, a bound method of a model, or `None` if the method is
/// not the one of `BaseModel`.
///
/// # Errors
///
/// Whatever the serializer raises.
pub(crate) fn dump_json<'py>(
    model_dump_json: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some(dump) = &FastPaths::of(model_dump_json.py())?.dump_json else {
        return Ok(None);
    };
    match model_of(model_dump_json, &dump.method)? {
        Some(model) => dump.call(&model).map(Some),
        None => Ok(None),
    }
}

/// Try the fast paths now, before other code can replace a method.
///
/// # Errors
///
/// Only a warning that a warning filter turns into an error.
pub(crate) fn probe_fast_paths(py: Python<'_>) -> PyResult<()> {
    FastPaths::of(py).map(drop)
}

struct FastPaths {
    dump: Option<Dump>,
    dump_json: Option<DumpJson>,
    setters: Option<Setters>,
}

impl FastPaths {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static PATHS: PyOnceLock<FastPaths> = PyOnceLock::new();
        PATHS.get_or_try_init(py, || {
            let paths = Self {
                dump: Dump::probe(py).ok(),
                dump_json: DumpJson::probe(py).ok(),
                setters: Setters::probe(py).ok(),
            };
            if paths.dump.is_none() || paths.dump_json.is_none() {
                warn(
                    py,
                    c"fastapi_sse_fast does not recognize how pydantic's BaseModel is serialized; \
                      perhaps other code has wrapped it. Models are sent correctly, but more \
                      slowly.",
                )?;
            }
            if paths.setters.is_none() {
                warn(
                    py,
                    c"fastapi_sse_fast does not recognize how pydantic's BaseModel is constructed; \
                      perhaps other code has wrapped it. Events are created correctly, but more \
                      slowly.",
                )?;
            }
            Ok(paths)
        })
    }
}

fn warn(py: Python<'_>, message: &CStr) -> PyResult<()> {
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), message, 1)
}

/// `model_dump` as FastAPI's encoder calls it.
struct Dump {
    base: Base,
    method: Py<PyAny>,
    options: Py<PyDict>,
}

impl Dump {
    /// Return the fast path if it gives what the method gives.
    ///
    /// # Errors
    ///
    /// Any reason not to use it.
    fn probe(py: Python<'_>) -> PyResult<Self> {
        let options = [("by_alias", true)].into_py_dict(py)?;
        options.set_item("mode", "json")?;
        let dump = Self {
            base: Base::new(&base_model(py)?)?,
            method: own_method(&base_model(py)?, "model_dump")?.unbind(),
            options: options.unbind(),
        };
        let model = sample(py)?;
        let options = dump.options.bind(py);
        let plain = model.call_method("model_dump", (), Some(options))?;
        check_equal(&dump.call(&model)?, &plain)?;
        Ok(dump)
    }

    fn call<'py>(&self, model: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = model.py();
        let serialize = serializer(model)?.getattr(intern!(py, "to_python"))?;
        serialize.call((model,), Some(self.options.bind(py)))
    }
}

/// `model_dump_json` as FastAPI calls it, without arguments.
struct DumpJson {
    method: Py<PyAny>,
    /// The method's default for `by_alias`. Before pydantic 2.11 it is not the serializer's.
    options: Option<Py<PyDict>>,
}

impl DumpJson {
    /// As [`Dump::probe`].
    fn probe(py: Python<'_>) -> PyResult<Self> {
        let method = own_method(&base_model(py)?, "model_dump_json")?;
        let by_alias = method.getattr("__kwdefaults__")?.get_item("by_alias")?;
        let options = (!by_alias.is_none())
            .then(|| [("by_alias", by_alias)].into_py_dict(py))
            .transpose()?;
        let dump = Self {
            method: method.unbind(),
            options: options.map(Bound::unbind),
        };
        let model = sample(py)?;
        let json = dump.call(&model)?.call_method0("decode")?;
        check_equal(&json, &model.call_method0("model_dump_json")?)?;
        Ok(dump)
    }

    fn call<'py>(&self, model: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = model.py();
        let options = self.options.as_ref().map(|options| options.bind(py));
        let json = serializer(model)?.call_method(intern!(py, "to_json"), (model,), options)?;
        Ok(json.cast_into()?)
    }
}

/// The setters of the `__slots__` of `BaseModel`. They fill an event without pydantic.
pub(crate) struct Setters {
    fields_set: Py<PyAny>,
    extra: Py<PyAny>,
    private: Py<PyAny>,
    /// All fields of an event with the value `None`. Each event gets a copy.
    defaults: Py<PyDict>,
}

impl Setters {
    /// Return the setters if they can be used.
    ///
    /// # Errors
    ///
    /// As [`probe_fast_paths`].
    pub(crate) fn of(py: Python<'_>) -> PyResult<Option<&Self>> {
        Ok(FastPaths::of(py)?.setters.as_ref())
    }

    /// As [`Dump::probe`].
    fn probe(py: Python<'_>) -> PyResult<Self> {
        let slots = base_model(py)?.getattr("__dict__")?;
        let setter = |name| -> PyResult<Py<PyAny>> {
            Ok(slots.get_item(name)?.getattr("__set__")?.unbind())
        };
        let model = sample(py)?;
        let class = model.get_type();
        // The code that is skipped must be pydantic's own. A wrapper or a plugin must not miss the
        // calls that it expects.
        own_method(&class, "__init__")?;
        let validate = class.getattr("__pydantic_validator__")?;
        let validator = validate.getattr("validate_python")?.getattr("__self__")?;
        let own = py.import("pydantic_core")?.getattr("SchemaValidator")?;
        check_equal(&validator.get_type(), &own)?;
        let defaults = PyDict::new(py);
        for name in model.getattr("__dict__")?.cast::<PyDict>()?.keys() {
            defaults.set_item(name, py.None())?;
        }
        let setters = Self {
            fields_set: setter("__pydantic_fields_set__")?,
            extra: setter("__pydantic_extra__")?,
            private: setter("__pydantic_private__")?,
            defaults: defaults.unbind(),
        };
        let filled = class.call_method1("__new__", (&class,))?;
        setters.fill(&filled, &sample_fields(py)?)?;
        check_equal(&filled, &model)?;
        // `==` compares neither which fields were set nor where pydantic stores that.
        let (set, state) = ("model_fields_set", "__getstate__");
        check_equal(&filled.getattr(set)?, &model.getattr(set)?)?;
        check_equal(&filled.call_method0(state)?, &model.call_method0(state)?)?;
        Ok(setters)
    }

    /// Fill a new event with valid fields. Return `false` and do nothing if it is not new.
    ///
    /// # Errors
    ///
    /// None that the fields can cause.
    pub(crate) fn fill<'py>(
        &self,
        event: &Bound<'py, PyAny>,
        fields: &Bound<'py, PyDict>,
    ) -> PyResult<bool> {
        let py = event.py();
        // The existing `__dict__` is filled, because replacing it would cost as much as a new dict.
        let attributes = event.getattr(intern!(py, "__dict__"))?;
        let attributes = attributes.cast::<PyDict>()?;
        if !attributes.is_empty() {
            return Ok(false);
        }
        attributes.update(self.defaults.bind(py).as_mapping())?;
        let fields_set = PySet::empty(py)?;
        for item in DictItems::of(fields) {
            let (name, value) = item?;
            fields_set.add(&name)?;
            attributes.set_item(name, value)?;
        }
        self.fields_set.bind(py).call1((event, fields_set))?;
        self.extra.bind(py).call1((event, py.None()))?;
        self.private.bind(py).call1((event, py.None()))?;
        Ok(true)
    }
}

/// Return a model to try a fast path with.
fn sample(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let class = py.import("fastapi.sse")?.getattr("ServerSentEvent")?;
    class.call((), Some(&sample_fields(py)?))
}

fn sample_fields(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    [("id", "1"), ("event", "a")].into_py_dict(py)
}

/// Check that a fast path gives the same as the plain one.
fn check_equal(fast: &Bound<'_, PyAny>, plain: &Bound<'_, PyAny>) -> PyResult<()> {
    if fast.eq(plain)? {
        Ok(())
    } else {
        Err(PyRuntimeError::new_err("the fast path differs"))
    }
}

fn base_model(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(py.import("pydantic")?.getattr("BaseModel")?.cast_into()?)
}

/// Return a method of a model's class if pydantic's own module defines it.
fn own_method<'py>(class: &Bound<'py, PyType>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let method = class.getattr(name)?;
    let home = class.py().import("pydantic.main")?.dict();
    if method.getattr("__globals__")?.is(&home) {
        Ok(method)
    } else {
        Err(PyRuntimeError::new_err("the method is not pydantic's"))
    }
}

/// Return the model that `method` is bound to, if its function is `own`. Looking the method up on
/// the class would cost twice as much, because that runs pydantic's metaclass.
fn model_of<'py>(
    method: &Bound<'py, PyAny>,
    own: &Py<PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = method.py();
    match method.getattr_opt(intern!(py, "__func__"))? {
        Some(function) if function.is(own) => method.getattr(intern!(py, "__self__")).map(Some),
        _ => Ok(None),
    }
}

fn serializer<'py>(model: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    model.getattr(intern!(model.py(), "__pydantic_serializer__"))
}
