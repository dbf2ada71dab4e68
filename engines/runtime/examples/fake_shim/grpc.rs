//! The fake shim over gRPC.

use berth_proto as proto;
use prost::Message;
use proto::containerd::task::v3 as wire;
use proto::containerd::task::v3::task_server::{Task, TaskServer};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

use crate::Shim;

pub(crate) async fn serve(shim: Shim, listener: UnixListener, stop: impl Future<Output = ()>) {
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder().add_service(TaskServer::new(shim));
    server.serve_with_incoming_shutdown(incoming, stop).await.unwrap();
}

macro_rules! methods {
    ($($name:ident $method:literal $request:ident $answer:ty;)*) => {
        #[tonic::async_trait]
        impl Task for Shim {$(
            async fn $name(&self, request: Request<wire::$request>) -> Result<Response<$answer>, Status> {
                let payload = request.into_inner().encode_to_vec();
                match self.answer($method, &payload).await {
                    Ok(answer) => Ok(Response::new(<$answer>::decode(answer.as_slice()).unwrap())),
                    Err(status) => Err(Status::new(tonic::Code::from_i32(status.code.into()), status.message)),
                }
            }
        )*}
    };
}

methods! {
    state "State" StateRequest wire::StateResponse;
    create "Create" CreateTaskRequest wire::CreateTaskResponse;
    start "Start" StartRequest wire::StartResponse;
    delete "Delete" DeleteRequest wire::DeleteResponse;
    pids "Pids" PidsRequest wire::PidsResponse;
    pause "Pause" PauseRequest ();
    resume "Resume" ResumeRequest ();
    checkpoint "Checkpoint" CheckpointTaskRequest ();
    kill "Kill" KillRequest ();
    exec "Exec" ExecProcessRequest ();
    resize_pty "ResizePty" ResizePtyRequest ();
    close_io "CloseIO" CloseIoRequest ();
    update "Update" UpdateTaskRequest ();
    wait "Wait" WaitRequest wire::WaitResponse;
    stats "Stats" StatsRequest wire::StatsResponse;
    connect "Connect" ConnectRequest wire::ConnectResponse;
    shutdown "Shutdown" ShutdownRequest ();
}
