//! The envelope of a unary call, field by field as every ttrpc implementation has it.

use prost::Message as _;

use crate::frame::{self, FrameType};
use crate::{Code, Metadata, Status};

/// The data of a request frame.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Request {
    /// The protobuf service, `containerd.task.v3.Task`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// The method alone, `Create`.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded request message.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// Nanoseconds until the caller gives up; 0 when it waits for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// The headers.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// One header.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    /// The name, in lower case.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// The data of a response frame.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Response {
    /// Absent, or of code 0, when the call succeeded.
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    /// The encoded response message.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status` without its details, which no shim sends.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RpcStatus {
    /// A number of [`Code`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The sentence for a person.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Request {
    /// The headers as a [`Metadata`], taken out of the request.
    pub fn take_metadata(&mut self) -> Metadata {
        Metadata::from(std::mem::take(&mut self.metadata))
    }

    /// The whole frame of this request; longer ones than the protocol allows are refused with `ResourceExhausted`.
    pub fn into_frame(self, stream: u32) -> Result<Vec<u8>, Status> {
        let data = self.encode_to_vec();
        if data.len() > frame::MAX_DATA {
            return Err(frame::oversize(data.len()));
        }
        Ok(frame::encode(stream, FrameType::Request, 0, &data))
    }
}

impl Response {
    /// Reads the data of a response frame.
    pub fn decode_frame(data: &[u8]) -> Result<Self, prost::DecodeError> {
        Self::decode(data)
    }

    /// Takes the answer apart: the payload, or why there is none.
    pub fn into_result(self) -> Result<Vec<u8>, Status> {
        match self.status {
            Some(status) if status.code != i32::from(Code::Ok) => {
                Err(Status { code: Code::from(status.code), message: status.message })
            }
            _ => Ok(self.payload),
        }
    }

    /// The whole frame that answers `stream`; an answer too long for a frame turns into `ResourceExhausted`.
    pub fn frame(stream: u32, result: Result<Vec<u8>, Status>) -> Vec<u8> {
        let data = match result {
            Ok(payload) => Self { status: None, payload },
            Err(status) => Self::failure(status),
        }
        .encode_to_vec();
        if data.len() > frame::MAX_DATA {
            let data = Self::failure(frame::oversize(data.len())).encode_to_vec();
            return frame::encode(stream, FrameType::Response, 0, &data);
        }
        frame::encode(stream, FrameType::Response, 0, &data)
    }

    fn failure(status: Status) -> Self {
        let Status { code, message } = status;
        Self { status: Some(RpcStatus { code: i32::from(code), message }), payload: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Event};

    #[test]
    fn an_answer_too_long_for_a_frame_becomes_resource_exhausted() {
        let bytes = Response::frame(7, Ok(vec![0; frame::MAX_DATA]));
        let mut events = Vec::new();
        Decoder::default().feed(&bytes, &mut events);
        let [Event::Frame(frame)] = events.as_slice() else { panic!("{events:?}") };
        let answer = Response::decode(frame.data.as_slice()).unwrap().into_result();
        assert_eq!(answer.unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(frame.stream, 7);
    }

    #[test]
    fn a_status_of_code_zero_is_success() {
        let status = Some(RpcStatus { code: 0, message: "fine".into() });
        assert_eq!(Response { status, payload: vec![1] }.into_result(), Ok(vec![1]));
    }
}
