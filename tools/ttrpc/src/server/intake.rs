//! The rules by which a server takes frames: which are calls, which are refused and in what words.

use prost::Message as _;

use crate::frame::{Event, Frame, FrameType, REMOTE_OPEN, oversize};
use crate::wire::Request;
use crate::{Code, Status};

/// Checks what one client sends. One per connection; pure.
#[derive(Debug, Default)]
pub struct Intake {
    last: u32,
}

/// What a server does with an event.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A unary call to serve.
    Call {
        /// The stream on which it is answered.
        stream: u32,
        /// The call.
        request: Request,
    },
    /// Answered at once with this failure; the connection goes on.
    Refused {
        /// The stream that was at fault.
        stream: u32,
        /// Why.
        status: Status,
    },
    /// Of a later version of the protocol: no answer.
    Ignored,
}

impl Intake {
    /// Judges one event.
    pub fn take(&mut self, event: Event) -> Incoming {
        let frame = match event {
            Event::Oversize { stream, length } => {
                return Incoming::Refused { stream, status: oversize(length as usize) };
            }
            Event::Frame(frame) => frame,
        };
        if frame.stream.is_multiple_of(2) {
            return refuse(frame.stream, "StreamID must be odd for client initiated streams");
        }
        match frame.kind {
            FrameType::Request => self.request(frame),
            FrameType::Data => refuse(frame.stream, "StreamID is no longer active"),
            FrameType::Response | FrameType::Other(_) => Incoming::Ignored,
        }
    }

    fn request(&mut self, frame: Frame) -> Incoming {
        let stream = frame.stream;
        if stream <= self.last {
            return refuse(stream, "StreamID cannot be re-used and must increment");
        }
        self.last = stream;
        let request = match Request::decode(frame.data.as_slice()) {
            Ok(request) => request,
            Err(error) => return refuse(stream, &format!("unmarshal request error: {error}")),
        };
        if frame.flags & REMOTE_OPEN != 0 {
            let message = format!("method {} (as a stream)", request.method);
            return Incoming::Refused { stream, status: Status::new(Code::Unimplemented, message) };
        }
        Incoming::Call { stream, request }
    }
}

fn refuse(stream: u32, message: &str) -> Incoming {
    Incoming::Refused { stream, status: Status::new(Code::InvalidArgument, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stream: u32, flags: u8) -> Event {
        let data = Request { method: "Wait".into(), ..Default::default() }.encode_to_vec();
        Event::Frame(Frame { stream, kind: FrameType::Request, flags, data })
    }

    fn code(incoming: Incoming) -> Option<Code> {
        match incoming {
            Incoming::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    #[test]
    fn ids_must_be_odd_and_increase() {
        let mut intake = Intake::default();
        assert_eq!(code(intake.take(request(2, 0))), Some(Code::InvalidArgument));
        assert!(matches!(intake.take(request(3, 0)), Incoming::Call { stream: 3, .. }));
        assert_eq!(code(intake.take(request(3, 0))), Some(Code::InvalidArgument));
        assert_eq!(code(intake.take(request(1, 0))), Some(Code::InvalidArgument));
        assert!(matches!(intake.take(request(9, 0)), Incoming::Call { stream: 9, .. }));
    }

    #[test]
    fn a_stream_is_unimplemented_and_its_data_belongs_to_nobody() {
        let mut intake = Intake::default();
        assert_eq!(code(intake.take(request(1, REMOTE_OPEN))), Some(Code::Unimplemented));
        let data = Frame { stream: 1, kind: FrameType::Data, flags: 0, data: Vec::new() };
        assert_eq!(code(intake.take(Event::Frame(data))), Some(Code::InvalidArgument));
    }

    #[test]
    fn rubbish_in_a_request_is_answered_and_forgotten() {
        let mut intake = Intake::default();
        let rubbish = Frame { stream: 1, kind: FrameType::Request, flags: 0, data: vec![0xff; 9] };
        assert_eq!(code(intake.take(Event::Frame(rubbish))), Some(Code::InvalidArgument));
        assert!(matches!(intake.take(request(3, 0)), Incoming::Call { .. }));
    }

    #[test]
    fn a_frame_of_a_later_protocol_is_ignored() {
        let frame = Frame { stream: 1, kind: FrameType::Other(9), flags: 0, data: Vec::new() };
        assert_eq!(Intake::default().take(Event::Frame(frame)), Incoming::Ignored);
    }
}
