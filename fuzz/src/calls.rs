//! Sequences of calls of the C interface in any order, with any handle that is not freed (also NULL and handles of the
//! wrong kind), some cancelled from another thread. A failed call must return an error object of the same status and no
//! handle, and a successful call no error; no error may be internal. Sanitizers find memory errors.

use crate::targets;
use optimize::ffi::{buffer::*, call::*, context::*, ensemble::*, error::*, generator::*, model::*, package::*};
use optimize::ffi::{prune::*, quantize::*, run::*, session::*, status::*, tensor::*, tokenizer::*};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

/// The kinds of handles.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Context,
    Model,
    Tensor,
    Session,
    Tokenizer,
    Generator,
    Ensemble,
    Package,
    Buffer,
    Error,
    Cancel,
}
use Kind::*;

/// Paths of files that an input refers to by index; `seeds` writes the files, and OPTIMIZE_FUZZ_FILES names their
/// folder.
static PATHS: LazyLock<Vec<CString>> = LazyLock::new(|| {
    let folder = std::env::var("OPTIMIZE_FUZZ_FILES").expect("OPTIMIZE_FUZZ_FILES names the folder that `seeds` made");
    let out = targets::FOLDER.join("out").display().to_string();
    let names = ["model.onnx", "decoder", "tokenizer.json", "package", "missing", "ensemble.json"];
    let files = names.iter().map(|name| format!("{folder}/{name}"));
    files.chain([format!("{out}.onnx"), format!("{out}.package")]).map(|path| CString::new(path).unwrap()).collect()
});

static TEXTS: [&CStr; 6] =
    [c"", c"a b", c"hello \xf0\x9f\x98\x80", c"\xff\xfe", c"[{\"role\": \"user\", \"content\": \"a\"}]", c"*"];

struct Machine<'d> {
    input: &'d [u8],
    live: Vec<(Kind, *mut c_void)>,
    error: *mut optimize_error_t,
    /// One more than the number of expensive calls that the input may still make.
    fuel: u32,
}

impl Machine<'_> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.input.split_first().unwrap_or((&0, &[]));
        self.input = rest;
        first
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Returns a number: mostly one below 255, sometimes any.
    fn number(&mut self) -> u32 {
        match self.byte() {
            255 => self.word(),
            small => u32::from(small),
        }
    }

    /// Returns a live handle of `kind`, sometimes a live handle of another kind, and sometimes NULL.
    fn handle<T>(&mut self, kind: Kind) -> *mut T {
        let choice = self.byte();
        let any = choice >= 248;
        let of_kind: Vec<_> = self.live.iter().filter(|(k, _)| any || *k == kind).collect();
        if choice == 247 || of_kind.is_empty() {
            return null_mut();
        }
        of_kind[usize::from(choice) % of_kind.len()].1.cast()
    }

    fn path(&mut self) -> *const c_char {
        let index = usize::from(self.byte());
        if index == 255 { null() } else { PATHS[index % PATHS.len()].as_ptr() }
    }

    fn text(&mut self) -> &'static CStr {
        TEXTS[usize::from(self.byte()) % TEXTS.len()]
    }

    /// Checks the result of a call, and stores the handle that it created.
    fn answer<T>(&mut self, status: optimize_status_t, kind: Kind, made: *mut T) {
        let ok = status as i32 == 0;
        // SAFETY: the error is NULL or was made by the call.
        unsafe {
            assert_eq!(ok, self.error.is_null(), "an error object exactly when the call failed");
            if !ok {
                assert!(made.is_null(), "an output of a call that failed");
                assert_eq!(optimize_error_status(self.error) as i32, status as i32);
                let message = CStr::from_ptr(optimize_error_message(self.error));
                assert!(!message.is_empty() && message.to_str().is_ok());
                assert!(!message.to_string_lossy().starts_with("internal error"), "{message:?}");
                optimize_error_place(self.error);
            }
        }
        if !ok && self.live.len() < 48 && self.byte() == 1 {
            self.live.push((Error, self.error.cast()));
        } else {
            // SAFETY: as above; NULL is taken.
            unsafe { optimize_error_free(self.error) };
        }
        self.error = null_mut();
        if !made.is_null() {
            self.live.push((kind, made.cast()));
        }
    }

    fn nothing(&mut self, status: optimize_status_t) {
        self.answer::<c_void>(status, Error, null_mut());
    }

    fn costly(&mut self) -> bool {
        self.fuel = self.fuel.saturating_sub(1);
        self.fuel > 0
    }

    fn free(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let index = usize::from(self.byte()) % self.live.len();
        let (kind, handle) = self.live.swap_remove(index);
        release(kind, handle);
    }

    /// Returns the options of a call, in some cases with a timeout of 1 ms or a cancel token (fired or not).
    fn call(&mut self) -> optimize_call_t {
        let cancel: *mut optimize_cancel_t = match self.byte() {
            0..200 => null_mut(),
            _ => self.handle(Cancel),
        };
        let timeout_ms = if self.byte() > 250 { 1 } else { 0 };
        optimize_call_t {
            struct_size: size_of::<optimize_call_t>() as u32,
            timeout_ms,
            progress: None,
            user_data: null_mut(),
            cancel,
        }
    }
}

fn release(kind: Kind, handle: *mut c_void) {
    // SAFETY: a live handle of that kind, not used afterwards.
    unsafe {
        match kind {
            Context => optimize_context_free(handle.cast()),
            Model => optimize_model_free(handle.cast()),
            Tensor => optimize_tensor_free(handle.cast()),
            Session => optimize_session_free(handle.cast()),
            Tokenizer => optimize_tokenizer_free(handle.cast()),
            Generator => optimize_generator_free(handle.cast()),
            Ensemble => optimize_ensemble_free(handle.cast()),
            Package => optimize_package_free(handle.cast()),
            Buffer => optimize_buffer_free(handle.cast()),
            Error => optimize_error_free(handle.cast()),
            Cancel => optimize_cancel_free(handle.cast()),
        }
    }
}

/// Returns options that are all zero except for their size.
fn zeroed<T>(set: impl FnOnce(&mut T)) -> T {
    // SAFETY: option structs are integers, floats and pointers; all zero means the defaults.
    let mut options: T = unsafe { std::mem::zeroed() };
    set(&mut options);
    options
}

macro_rules! sized {
    ($type:ident { $($field:ident: $value:expr),* $(,)? }) => {
        zeroed(|options: &mut $type| {
            options.struct_size = size_of::<$type>() as u32;
            $(options.$field = $value;)*
        })
    };
}

/// Makes a call with one output.
macro_rules! make {
    ($machine:ident, $kind:ident, $function:ident($($argument:expr),*)) => {{
        let mut made = null_mut();
        // SAFETY: live handles or NULL, and texts that outlive the call.
        let status = unsafe { $function($($argument,)* &raw mut made, &raw mut $machine.error) };
        $machine.answer(status, $kind, made);
    }};
}

/// Makes a call with an output and a report.
macro_rules! report {
    ($machine:ident, $kind:ident, $function:ident($($argument:expr),*)) => {{
        let (mut made, mut report) = (null_mut(), null_mut());
        // SAFETY: as above.
        let status = unsafe { $function($($argument,)* &raw mut made, &raw mut report, &raw mut $machine.error) };
        $machine.answer(status, $kind, made);
        if !report.is_null() {
            $machine.live.push((Buffer, report.cast()));
        }
    }};
}

fn step(m: &mut Machine) {
    match m.byte() % 40 {
        0..4 => m.free(),
        4 => make!(m, Context, optimize_context_new(&sized!(optimize_context_options_t { threads: m.number() % 3 }))),
        5..8 => {
            let (context, path, call) = (m.handle(Context), m.path(), m.call());
            make!(m, Model, optimize_model_load(context, path, &call));
        }
        8 => {
            let (context, call, data) = (m.handle(Context), m.call(), m.input);
            make!(m, Model, optimize_model_load_memory(context, data.as_ptr().cast(), data.len(), &call));
        }
        9 => {
            let (model, path, call) = (m.handle(Model), PATHS[6].as_ptr(), m.call());
            let options = sized!(optimize_save_options_t { external_data: m.number() as i32, packed: m.number() % 2 });
            make!(m, Buffer, optimize_model_save(model, path, &options, &call));
        }
        10 => make!(m, Buffer, optimize_model_inspect(m.handle(Model))),
        11 => value(m, Model),
        12 => value(m, Session),
        13..15 => tensor(m),
        15 => strings(m),
        16 => look_at_tensor(m),
        17 => {
            let (context, model, call) = (m.handle(Context), m.handle(Model), m.call());
            let options = sized!(optimize_session_options_t { threads: 1, optimization_level: m.number() as i32 % 5 });
            if m.costly() {
                make!(m, Session, optimize_session_new(context, model, &options, &call));
            }
        }
        18..20 => run(m),
        20 => make!(m, Buffer, optimize_session_placement(m.handle(Session))),
        21 => make!(m, Tokenizer, optimize_tokenizer_load(m.path())),
        22 => make!(m, Tokenizer, optimize_model_tokenizer(m.handle(Model))),
        23 => encode(m),
        24 => decode(m),
        25 => make!(m, Buffer, optimize_model_render_chat(m.handle(Model), m.text().as_ptr())),
        26 | 27 => quantize(m),
        28 | 29 => prune(m),
        30 => plan(m),
        31 => ensemble(m),
        32 => make!(m, Buffer, optimize_ensemble_inspect(m.handle(Ensemble))),
        33 => {
            let (ensemble, call) = (m.handle(Ensemble), m.call());
            report!(m, Model, optimize_ensemble_fuse(ensemble, &call));
        }
        34 => merge(m),
        35 => make!(m, Package, optimize_package_open(m.path(), null())),
        36 => make!(m, Model, optimize_package_model(m.handle(Package))),
        37 => {
            let (package, call) = (m.handle(Package), m.call());
            // SAFETY: as in `make`.
            let status = unsafe { optimize_package_verify(package, null(), &call, &raw mut m.error) };
            m.nothing(status);
        }
        38 => generate(m),
        _ => cancel(m),
    }
}

fn value(m: &mut Machine, kind: Kind) {
    let mut info: optimize_value_info_t =
        zeroed(|info: &mut optimize_value_info_t| info.struct_size = size_of::<optimize_value_info_t>() as u32);
    let (model, index) = (m.handle::<c_void>(kind), m.number() as usize);
    // SAFETY: as in `make`; what the information points to lives as long as the handle.
    let status = unsafe {
        match (kind, m.byte() % 2) {
            (Model, 0) => optimize_model_input(model.cast(), index, &raw mut info, &raw mut m.error),
            (Model, _) => optimize_model_output(model.cast(), index, &raw mut info, &raw mut m.error),
            (_, 0) => optimize_session_input(model.cast(), index, &raw mut info, &raw mut m.error),
            _ => optimize_session_output(model.cast(), index, &raw mut info, &raw mut m.error),
        }
    };
    m.nothing(status);
}

fn dims(m: &mut Machine) -> Vec<i64> {
    let rank = usize::from(m.byte() % 5);
    (0..rank).map(|_| i64::from(m.number() as i32)).collect()
}

fn tensor(m: &mut Machine) {
    let dtype = m.number() as i32;
    let dims = dims(m);
    let data: Vec<u8> = m.input.iter().copied().cycle().take(usize::from(m.byte()) * 16).collect();
    make!(m, Tensor, optimize_tensor_new(dtype, dims.as_ptr(), dims.len(), data.as_ptr().cast(), data.len()));
}

fn strings(m: &mut Machine) {
    let dims = dims(m);
    let texts: Vec<&CStr> = (0..m.byte() % 6).map(|_| m.text()).collect();
    let pointers: Vec<*const c_char> = texts.iter().map(|t| t.as_ptr()).collect();
    let sizes: Vec<usize> = texts.iter().map(|t| t.count_bytes()).collect();
    let count = pointers.len();
    make!(m, Tensor, optimize_tensor_new_strings(dims.as_ptr(), dims.len(), pointers.as_ptr(), sizes.as_ptr(), count));
}

fn look_at_tensor(m: &mut Machine) {
    let (tensor, index) = (m.handle::<optimize_tensor_t>(Tensor), m.number() as usize);
    let (mut data, mut size) = (null(), 0);
    // SAFETY: as in `make`; the tensor says how far its data may be read.
    unsafe {
        let (bytes, length) = (optimize_tensor_data(tensor).cast::<u8>(), optimize_tensor_size(tensor));
        if !bytes.is_null() && length > 0 {
            std::hint::black_box(*bytes.add(length - 1));
        }
        let (sizes, rank) = (optimize_tensor_dims(tensor), optimize_tensor_rank(tensor));
        if rank > 0 {
            std::hint::black_box(*sizes.add(rank - 1));
        }
        let status = optimize_tensor_string(tensor, index, &raw mut data, &raw mut size, &raw mut m.error);
        if status as i32 == 0 && size > 0 {
            std::hint::black_box(*data.add(size - 1));
        }
        m.nothing(status);
    }
}

fn run(m: &mut Machine) {
    let session = m.handle::<optimize_session_t>(Session);
    let names = [c"x".as_ptr(), m.text().as_ptr()];
    let tensors: [*const optimize_tensor_t; 2] = [m.handle(Tensor), m.handle(Tensor)];
    let (count, outputs, call) = (usize::from(m.byte() % 3), usize::from(m.byte() % 2), m.call());
    let wanted = [c"y".as_ptr()];
    let mut made = [null_mut(); 1];
    // SAFETY: as in `make`; there is room for as many outputs as are asked for.
    let status = unsafe {
        optimize_session_run(
            session,
            names.as_ptr(),
            tensors.as_ptr(),
            count,
            wanted.as_ptr(),
            outputs,
            &call,
            made.as_mut_ptr(),
            &raw mut m.error,
        )
    };
    m.answer(status, Tensor, made[0]);
}

fn encode(m: &mut Machine) {
    let tokenizer = m.handle::<optimize_tokenizer_t>(Tokenizer);
    let texts = [m.text(), m.text()];
    let pointers = texts.map(CStr::as_ptr);
    let sizes = texts.map(CStr::count_bytes);
    let count = usize::from(m.byte() % 3);
    let options = sized!(optimize_encode_options_t { no_special_tokens: m.number() % 2, max_length: m.number() });
    let (mut ids, mut mask, mut types) = (null_mut(), null_mut(), null_mut());
    // SAFETY: as in `make`.
    let status = unsafe {
        optimize_tokenizer_encode(
            tokenizer,
            pointers.as_ptr(),
            sizes.as_ptr(),
            count,
            &options,
            &raw mut ids,
            &raw mut mask,
            &raw mut types,
            &raw mut m.error,
        )
    };
    m.answer(status, Tensor, ids);
    for made in [mask, types].into_iter().filter(|made| !made.is_null()) {
        m.live.push((Tensor, made.cast()));
    }
}

fn decode(m: &mut Machine) {
    let tokenizer = m.handle::<optimize_tokenizer_t>(Tokenizer);
    let ids: Vec<i64> = (0..m.byte() % 8).map(|_| i64::from(m.number() as i32)).collect();
    make!(m, Buffer, optimize_tokenizer_decode(tokenizer, ids.as_ptr(), ids.len(), null()));
}

fn quantize_options(m: &mut Machine) -> optimize_quantize_options_t {
    sized!(optimize_quantize_options_t {
        bits: m.number() % 10,
        block_size: m.number(),
        symmetric: m.number() % 2,
        scale_type: m.number() as i32 % 5,
        accuracy_level: m.number() % 6,
        min_elements: u64::from(m.number() % 3),
        threads: 1,
        algorithm: m.number() as i32 % 6,
    })
}

fn quantize(m: &mut Machine) {
    let (context, model, call) = (m.handle(Context), m.handle(Model), m.call());
    let options = quantize_options(m);
    report!(m, Model, optimize_model_quantize(context, model, &options, &call));
}

fn plan(m: &mut Machine) {
    let (context, model) = (m.handle(Context), m.handle(Model));
    let options = quantize_options(m);
    make!(m, Buffer, optimize_model_plan(context, model, &options));
}

fn prune(m: &mut Machine) {
    let (context, model, call) = (m.handle(Context), m.handle(Model), m.call());
    let options = sized!(optimize_prune_options_t {
        method: m.number() as i32 % 7,
        sparsity: f64::from(m.byte()) / 200.0,
        pattern_keep: m.number() % 5,
        pattern_of: m.number() % 9,
        global: m.number() % 2,
        round_to: m.number(),
        drop_layers: m.number() % 3,
        min_elements: 1,
        threads: 1,
    });
    report!(m, Model, optimize_model_prune(context, model, &options, &call));
}

fn ensemble(m: &mut Machine) {
    let models: [*const optimize_model_t; 2] = [m.handle(Model), m.handle(Model)];
    let count = usize::from(m.byte() % 3);
    make!(m, Ensemble, optimize_ensemble_new(models.as_ptr(), count, null()));
}

fn merge(m: &mut Machine) {
    let models: [*const optimize_model_t; 2] = [m.handle(Model), m.handle(Model)];
    let (count, call) = (usize::from(m.byte() % 3), m.call());
    let options =
        sized!(optimize_merge_options_t { method: m.number() as i32 % 5, density: f64::from(m.byte()) / 200.0 });
    report!(m, Model, optimize_model_merge(models.as_ptr(), count, &options, &call));
}

fn generate(m: &mut Machine) {
    let (context, model, call) = (m.handle(Context), m.handle(Model), m.call());
    if !m.costly() || !m.costly() {
        return;
    }
    make!(m, Generator, optimize_generator_new(context, model, null(), &call));
    let generator = m.handle::<optimize_generator_t>(Generator);
    let texts = [m.text(), m.text()];
    let (pointers, sizes) = (texts.map(CStr::as_ptr), texts.map(CStr::count_bytes));
    let options = sized!(optimize_generate_options_t {
        max_new_tokens: 1 + m.number() % 4,
        top_k: m.number(),
        temperature: f32::from(m.byte()) / 64.0,
        rendered: 1,
    });
    let count = usize::from(m.byte() % 3);
    make!(m, Buffer, optimize_generator_generate(generator, pointers.as_ptr(), sizes.as_ptr(), count, &options, &call));
}

/// Makes a cancel token, and one more call while another thread fires the token.
fn cancel(m: &mut Machine) {
    let mut made = null_mut();
    // SAFETY: as in `make`; the thread ends before the token is freed.
    unsafe {
        let status = optimize_cancel_new(&raw mut made, &raw mut m.error);
        m.answer(status, Cancel, made);
        let token = made as usize;
        std::thread::scope(|scope| {
            scope.spawn(move || optimize_cancel_fire(token as *const _, null_mut()));
            step_without_threads(m);
        });
    }
}

fn step_without_threads(m: &mut Machine) {
    match m.byte() % 3 {
        0 => quantize(m),
        1 => prune(m),
        _ => plan(m),
    }
}

/// Decodes `data` as a sequence of calls, and makes them.
pub fn calls(data: &[u8]) {
    // Creating a session takes milliseconds: few inputs do it.
    let fuel = if data.first().is_some_and(|first| first % 64 == 7) { 3 } else { 1 };
    let mut m = Machine { input: data, live: Vec::new(), error: null_mut(), fuel };
    // Most calls need a context and a model.
    make!(m, Context, optimize_context_new(null()));
    let context = m.live[0].1;
    make!(m, Model, optimize_model_load(context.cast(), PATHS[0].as_ptr(), null()));
    while !m.input.is_empty() && m.live.len() < 64 {
        step(&mut m);
    }
    // The handles are freed in the order of their creation, so a context is freed before the objects that need it. This
    // must be allowed.
    for (kind, handle) in m.live {
        release(kind, handle);
    }
}
