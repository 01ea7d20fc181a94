//! The provider in a session: claims, compilation and runs.

use std::ffi::{CString, c_char, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use ort::sys::{OrtGraph, OrtKernelContext, OrtNode};

use super::api::Api;
use super::context::Context;
use super::graph::{Handles, fused_node};
use super::status::{Error, Result, check, guard};
use super::tables::{
    Ep, NodeComputeInfo, NodeFusionOptions, OrtEpGraphSupportInfo, OrtNodeComputeContext, Status, VERSION,
};
use crate::memory::Charge;
use crate::provider::bodies::Body;
use crate::provider::options::Options;
use crate::provider::session::Session;
use crate::provider::{self, compiled, memory::Trim};

/// The function table of an execution provider, and its state. The table is the first field, because ONNX Runtime reads
/// only that.
#[repr(C)]
pub struct EpObject {
    table: Ep,
    api: Api,
    session: Session,
    compatibility: CString,
}

/// The function table of a fused node, and its body.
#[repr(C)]
struct NodeObject {
    table: NodeComputeInfo,
    api: Api,
    body: Box<dyn Body>,
    /// Number of threads of the session.
    threads: usize,
    /// Trim of the heap in the first run of any node of the session.
    trim: Arc<Trim>,
    /// Charge for the packed weights, which ends with the node.
    _charge: Charge,
}

impl EpObject {
    /// Returns a new provider for a session with `options`, which [`Self::release`] frees. Fails if a name contains
    /// NUL.
    pub fn create(api: Api, options: Options) -> Result<*mut Ep> {
        let compatibility = CString::new(compiled::information()).map_err(|_| Error::new("a name contains NUL"))?;
        let object = Self { table: TABLE, api, session: Session::new(options), compatibility };
        Ok(Box::into_raw(Box::new(object)).cast())
    }

    /// Releases a provider.
    ///
    /// # Safety
    /// `ep` is null or one of [`Self::create`], and is not used again.
    pub unsafe fn release(ep: *mut Ep) {
        if !ep.is_null() {
            // SAFETY: the contract of this function.
            drop(unsafe { Box::from_raw(ep.cast::<Self>()) });
        }
    }
}

const TABLE: Ep = Ep {
    ort_version_supported: VERSION,
    GetName: name,
    GetCapability: capability,
    Compile: compile,
    ReleaseNodeComputeInfos: release_nodes,
    GetPreferredDataLayout: 0,
    ShouldConvertDataLayoutForOp: 0,
    SetDynamicOptions: 0,
    OnRunStart: 0,
    OnRunEnd: 0,
    CreateAllocator: 0,
    CreateSyncStreamForDevice: 0,
    GetCompiledModelCompatibilityInfo: Some(compatibility),
    GetKernelRegistry: 0,
    IsConcurrentRunSupported: 0,
    later: [0; 16],
};

unsafe extern "system" fn name(_: *const Ep) -> *const c_char {
    provider::NAME.as_ptr()
}

unsafe extern "system" fn compatibility(ep: *mut Ep, _: *const OrtGraph) -> *const c_char {
    // SAFETY: ONNX Runtime passes a provider that this library created.
    unsafe { (*ep.cast::<EpObject>()).compatibility.as_ptr() }
}

/// Passes the groups of nodes of `graph` that the provider claims to ONNX Runtime: each becomes one fused node.
unsafe extern "system" fn capability(
    ep: *mut Ep,
    graph: *const OrtGraph,
    support: *mut OrtEpGraphSupportInfo,
) -> Status {
    // SAFETY: ONNX Runtime passes a provider that this library created, and a graph that lives through the call.
    unsafe {
        let ep = &*ep.cast::<EpObject>();
        guard(ep.api, || {
            let mut handles = Handles::new(ep.api, graph);
            let groups = ep.session.claims(&handles.read()?);
            for (nodes, keeps_constants) in groups {
                let drop_constant_initializers = !keeps_constants;
                let fusion = NodeFusionOptions { ort_version_supported: VERSION, drop_constant_initializers };
                let nodes = handles.of(&nodes);
                let add = ep.api.ep().EpGraphSupportInfo_AddNodesToFuse;
                check(ep.api.ort(), add(support, nodes.as_ptr(), nodes.len(), &fusion))?;
            }
            Ok(())
        })
    }
}

/// Creates a body for each claimed group, and writes the compiled model if the session requests it. After an error,
/// `infos` contains no node. Returns the status for ONNX Runtime.
unsafe extern "system" fn compile(
    ep: *mut Ep,
    graphs: *const *const OrtGraph,
    fused: *const *const OrtNode,
    count: usize,
    infos: *mut *mut NodeComputeInfo,
    context_nodes: *mut *mut OrtNode,
) -> Status {
    // SAFETY: ONNX Runtime passes arrays of `count` pointers to objects that live through the call.
    unsafe {
        let ep = &mut *ep.cast::<EpObject>();
        let api = ep.api;
        guard(api, || {
            let (mut bodies, mut charges) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for index in 0..count {
                let mut handles = Handles::new(api, *graphs.add(index));
                let path = handles.model_path()?;
                let node = fused_node(api, *fused.add(index))?;
                let (body, charge) = ep.session.compile(&handles.read()?, &node, path.as_ref())?;
                bodies.push((body, node));
                charges.push(charge);
            }
            if let Some(writer) = ep.session.context_writer() {
                for (index, node) in writer.write(&bodies)?.into_iter().enumerate() {
                    *context_nodes.add(index) = super::node::create(api, &node)?;
                }
            }
            let trim = Arc::new(Trim::new(bodies.iter().map(|(body, _)| body.packed_bytes()).sum()));
            for (index, ((body, _), charge)) in bodies.into_iter().zip(charges).enumerate() {
                let (threads, trim) = (ep.session.threads(), Arc::clone(&trim));
                *infos.add(index) =
                    Box::into_raw(Box::new(NodeObject { table: NODE, api, body, threads, trim, _charge: charge }))
                        .cast();
            }
            Ok(())
        })
    }
}

unsafe extern "system" fn release_nodes(_: *mut Ep, infos: *mut *mut NodeComputeInfo, count: usize) {
    // SAFETY: ONNX Runtime passes what `compile` created, and does not use it again.
    unsafe {
        for index in 0..count {
            let info = *infos.add(index);
            if !info.is_null() {
                drop(Box::from_raw(info.cast::<NodeObject>()));
            }
        }
    }
}

const NODE: NodeComputeInfo = NodeComputeInfo {
    ort_version_supported: VERSION,
    CreateState: create_state,
    Compute: compute,
    ReleaseState: release_state,
};

/// Creates no state, because concurrent runs of a node share its body.
unsafe extern "system" fn create_state(
    _: *mut NodeComputeInfo,
    _: *mut OrtNodeComputeContext,
    state: *mut *mut c_void,
) -> Status {
    // SAFETY: ONNX Runtime passes a valid pointer.
    unsafe { *state = null_mut() };
    null_mut()
}

unsafe extern "system" fn release_state(_: *mut NodeComputeInfo, _: *mut c_void) {}

unsafe extern "system" fn compute(info: *mut NodeComputeInfo, _: *mut c_void, raw: *mut OrtKernelContext) -> Status {
    // SAFETY: ONNX Runtime passes a node that this library created, and a context that lives through the call. Several
    // runs may be here at once, so the node is only read.
    unsafe {
        let node = &*info.cast::<NodeObject>();
        guard(node.api, || {
            node.trim.once();
            let context = Context::new(node.api, raw, node.threads);
            node.body.run(&context)?;
            context.pool().finish()
        })
    }
}
