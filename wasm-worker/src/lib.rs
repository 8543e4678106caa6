//! The kernel and the page's side of the protocol for Web Workers.
//!
//! Two kinds of Web Workers load this module: one *mesh worker*, which owns the WebSockets and runs
//! a [`MeshSession`], and one *compute worker* for each hardware thread, which runs a
//! [`ComputeTask`]. What is below these exports is plain Rust and tested on the host.

mod object;
pub mod probe;
pub mod session;
pub mod task;

use gemmesh_kernel::{Class, peak, supports};
use gemmesh_protocol::time::{Instant, Span};
use js_sys::{Array, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::object::plain;
use crate::probe::Probe;
use crate::session::{Action, Session};
use crate::task::Task;

/// Milliseconds of `performance.now()` as the protocol's time.
fn instant(ms: f64) -> Instant {
    Instant((ms * 1e3) as u64)
}

fn js_error(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// See [`Session`]. `now` is always `performance.now()`.
#[wasm_bindgen]
pub struct MeshSession(Session);

#[wasm_bindgen]
impl MeshSession {
    /// `seed` is 32 random bytes, whose hash is the device's id; `start` is an object with the fields
    /// of [`session::Start`].
    ///
    /// # Errors
    /// When one of them has another form.
    #[wasm_bindgen(constructor)]
    pub fn new(seed: &[u8], start: &JsValue, now: f64) -> Result<MeshSession, JsError> {
        let seed = seed.try_into().map_err(js_error)?;
        let start = object::start(start)?;
        Ok(Self(Session::new(seed, start, instant(now))))
    }

    /// This device's id in hexadecimal.
    pub fn device(&self) -> String {
        self.0.device().to_string()
    }

    /// A WebSocket that was dialled is open.
    #[wasm_bindgen(js_name = linkUp)]
    pub fn link_up(&mut self, link: u32, address: String, now: f64) -> Array {
        self.0.link_up(link.into(), address, instant(now));
        self.actions()
    }

    /// A WebSocket is gone.
    #[wasm_bindgen(js_name = linkDown)]
    pub fn link_down(&mut self, link: u32, now: f64) -> Array {
        self.0.link_down(link.into(), instant(now));
        self.actions()
    }

    /// A WebSocket could not be opened.
    #[wasm_bindgen(js_name = dialFailed)]
    pub fn dial_failed(&mut self, address: String, now: f64) -> Array {
        self.0.dial_failed(address, instant(now));
        self.actions()
    }

    /// A binary message arrived.
    ///
    /// # Errors
    /// The other side does not speak this protocol: close the link.
    pub fn frame(&mut self, link: u32, bytes: &[u8], now: f64) -> Result<Array, JsError> {
        self.0
            .frame(link.into(), bytes, instant(now))
            .map_err(js_error)?;
        Ok(self.actions())
    }

    /// A slot finished a slab of which it is not the last.
    #[wasm_bindgen(js_name = slabDone)]
    pub fn slab_done(&mut self, slot: u32, kernel_ms: f64, now: f64) -> Array {
        self.0.slab_done(slot, span(kernel_ms), None, instant(now));
        self.actions()
    }

    /// A slot finished the last slab of its tile, C is `bytes` long: the number under which the
    /// caller keeps it. Read the actions afterwards with [`MeshSession::actions`].
    #[wasm_bindgen(js_name = tileDone)]
    pub fn tile_done(&mut self, slot: u32, kernel_ms: f64, bytes: u32, now: f64) -> Option<u32> {
        self.0
            .slab_done(slot, span(kernel_ms), Some(bytes as usize), instant(now))
    }

    /// A slot could not compute.
    #[wasm_bindgen(js_name = slotFailed)]
    pub fn slot_failed(&mut self, slot: u32, now: f64) -> Array {
        self.0.slot_failed(slot, instant(now));
        self.actions()
    }

    /// The person renamed this device, changed the number of slots, or paused it.
    pub fn configure(
        &mut self,
        name: Option<String>,
        slots: Option<u32>,
        paused: Option<bool>,
        now: f64,
    ) -> Array {
        self.0.configure(name, slots, paused, instant(now));
        self.actions()
    }

    /// The page goes: leases back, goodbye.
    pub fn leave(&mut self, now: f64) -> Array {
        self.0.leave(instant(now));
        self.actions()
    }

    /// Time passed.
    pub fn tick(&mut self, now: f64) -> Array {
        self.0.tick(instant(now));
        self.actions()
    }

    /// When to call `tick` if nothing happens before, in milliseconds of `performance.now()`.
    pub fn timeout(&self) -> Option<f64> {
        self.0.timeout().map(|at| at.0 as f64 / 1e3)
    }

    /// What to do next, in order: objects with a `kind`, see [`Action`]; a `send` also has the
    /// bytes of its `header`.
    pub fn actions(&mut self) -> Array {
        let actions = self.0.actions();
        let array: Array = plain(&actions).into();
        for (i, action) in actions.iter().enumerate() {
            if let Action::Send { header, .. } = action {
                let object = array.get(i as u32);
                let bytes = Uint8Array::from(header.as_slice());
                Reflect::set(&object, &"header".into(), &bytes).expect("a plain object");
            }
        }
        array
    }

    /// What this page has computed and how it stands with its node.
    pub fn contribution(&self) -> JsValue {
        plain(&self.0.contribution())
    }

    /// When a node is dialled again, in milliseconds of `performance.now()`, while that is waited for.
    pub fn retry(&self) -> Option<f64> {
        self.0.retry().map(|at| at.0 as f64 / 1e3)
    }

    /// Addresses of nodes, for `others` of a later session.
    pub fn nodes(&self) -> Vec<String> {
        self.0.nodes()
    }

    /// The devices of the mesh in the form of `GET /api/nodes`.
    pub fn devices(&self) -> JsValue {
        plain(&self.0.devices())
    }
}

fn span(ms: f64) -> Span {
    Span((ms * 1e3) as u64)
}

/// See [`Task`].
#[wasm_bindgen]
#[derive(Default)]
pub struct ComputeTask(Task);

#[wasm_bindgen]
impl ComputeTask {
    /// A compute worker without a tile.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a tile; `spec` is a slab's `spec`.
    ///
    /// # Errors
    /// It can not be computed here.
    pub fn begin(&mut self, spec: &JsValue) -> Result<(), JsError> {
        let spec = object::task_spec(spec)?;
        self.0.begin(&spec).map_err(js_error)
    }

    /// Begins a slab.
    ///
    /// # Errors
    /// It can not be computed here.
    #[wasm_bindgen(js_name = beginSlab)]
    pub fn begin_slab(&mut self, depth: u32) -> Result<(), JsError> {
        self.0.begin_slab(depth as usize).map_err(js_error)
    }

    /// Puts a part of a block of A; `part` is the slab's `part`.
    ///
    /// # Errors
    /// The part does not fit.
    #[wasm_bindgen(js_name = putA)]
    pub fn put_a(&mut self, block: &Uint8Array, part: &JsValue) -> Result<(), JsError> {
        let placement = object::placement(part)?;
        self.0.put_a(block, placement).map_err(js_error)
    }

    /// Puts a part of a block of B.
    ///
    /// # Errors
    /// The part does not fit.
    #[wasm_bindgen(js_name = putB)]
    pub fn put_b(&mut self, block: &Uint8Array, part: &JsValue) -> Result<(), JsError> {
        let placement = object::placement(part)?;
        self.0.put_b(block, placement).map_err(js_error)
    }

    /// C += A·B over the slab: the call that is timed.
    ///
    /// # Errors
    /// The slab is incomplete, or memory ran out.
    pub fn accumulate(&mut self) -> Result<(), JsError> {
        self.0.accumulate().map_err(js_error)
    }

    /// How many bytes C has.
    ///
    /// # Errors
    /// There is no tile.
    #[wasm_bindgen(js_name = resultBytes)]
    pub fn result_bytes(&mut self) -> Result<u32, JsError> {
        Ok(self.0.result_bytes().map_err(js_error)? as u32)
    }

    /// Writes the bytes of C into `to`, which is as long as `resultBytes` says.
    ///
    /// # Errors
    /// The tile is incomplete, `to` is of another length, or memory ran out.
    pub fn finish(&mut self, to: &Uint8Array) -> Result<(), JsError> {
        if to.length() != self.result_bytes()? {
            return Err(JsError::new("a buffer of another length than the result"));
        }
        let mut at = 0;
        let mut take = |piece: &[u8]| {
            let end = at + piece.len() as u32;
            to.subarray(at, end).copy_from(piece);
            at = end;
        };
        self.0.finish_into(&mut take).map_err(js_error)
    }
}

impl task::Block for Uint8Array {
    fn bytes(&self) -> usize {
        self.length() as usize
    }

    fn read(&self, from: usize, to: &mut [u8]) {
        let end = from + to.len();
        self.subarray(from as u32, end as u32).copy_to(to);
    }
}

/// A product to be timed by the page; see [`Probe`].
#[wasm_bindgen]
pub struct SpeedProbe(Probe);

#[wasm_bindgen]
impl SpeedProbe {
    /// Two `edge` × `edge` matrices of doubles, or of singles.
    ///
    /// # Errors
    /// Memory ran out.
    #[wasm_bindgen(constructor)]
    pub fn new(edge: u32, single: bool) -> Result<SpeedProbe, JsError> {
        Probe::new(edge as usize, single)
            .map(Self)
            .map_err(js_error)
    }

    /// Everything before the call that is timed.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn fill(&mut self) -> Result<(), JsError> {
        self.0.fill().map_err(js_error)
    }

    /// The call that is timed: returns its operations.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn run(&mut self) -> Result<f64, JsError> {
        self.0
            .run()
            .map(|operations| operations as f64)
            .map_err(js_error)
    }
}

/// Runs `iterations` rounds of multiply-adds of doubles, or of singles, in registers and returns their
/// operations: divided by the time, the limit of one thread.
#[wasm_bindgen]
pub fn limit(iterations: u32, single: bool) -> f64 {
    probe::limit(iterations.into(), single) as f64
}

/// Whether a multiply-add rounds once here at full speed: the class `fused`.
#[wasm_bindgen]
pub fn fuses() -> bool {
    supports(Class::Fused)
}

/// The name of the kernel in use.
#[wasm_bindgen]
pub fn instance() -> String {
    peak::instance().to_owned()
}
