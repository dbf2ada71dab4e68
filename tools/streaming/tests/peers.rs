//! Peers that speak for themselves: with old tokens, greedy, slow, or in dialects that no library speaks any more.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_streaming::spdy::frame::{Frame, data, initial_window, ping, window_update};
use berth_streaming::{Config, Wanted};
use bytes::BytesMut;
use common::raw::{Answer, SPDY_PORTS, SPDY4, Spdy, message, receive, request, websocket};
use common::{Host, IN_OUT, OUT, soon};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

#[tokio::test]
async fn a_url_is_good_once_for_its_own_kind_and_for_a_minute() {
    let host = Host::start(Config::default()).await;
    let url = host.exec("exit 0", OUT);
    assert_eq!(request("POST", &url, SPDY4).await.status, 101);
    assert_eq!(request("POST", &url, SPDY4).await.status, 404, "used");
    let url = host.exec("exit 0", OUT).replace("/exec/", "/attach/");
    assert_eq!(request("POST", &url, SPDY4).await.status, 404, "of another kind");
    let mut url = host.exec("exit 0", OUT);
    url.pop();
    assert_eq!(request("POST", &url, SPDY4).await.status, 404, "wrong");
    let url = host.exec("exit 0", OUT);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert_eq!(request("POST", &url, SPDY4).await.status, 404, "expired");
    host.stop().await;
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_refused_with_a_reason() {
    let host = Host::start(Config::default()).await;
    assert_eq!(request("GET", &host.exec("exit 0", OUT), "").await.status, 400);
    assert_eq!(request("DELETE", &host.exec("exit 0", OUT), SPDY4).await.status, 405);
    let Answer { status, head, .. } = request("POST", &host.exec("exit 0", OUT), SPDY_PORTS).await;
    assert_eq!(status, 403);
    assert!(head.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{head}");
    let url = host.ports(&[]);
    assert_eq!(request("GET", &url, &websocket("v4.channel.k8s.io")).await.status, 400, "which port?");
    host.stop().await;
}

#[tokio::test]
async fn urls_for_nothing_are_not_handed_out() {
    let host = Host::start(Config::default()).await;
    let container = "container".parse().unwrap();
    let request = berth_streaming::AttachRequest { container, wanted: Wanted::default() };
    let error = host.urls.attach(request).unwrap_err();
    assert_eq!(error.kind(), berth_types::ErrorKind::InvalidArgument);
    host.stop().await;
}

/// Expects that the server leaves, with a reason.
async fn is_left(mut spdy: Spdy) {
    let mut reason = None;
    while let Some(frame) = spdy.next().await {
        if frame == Frame::GoAway {
            reason = Some(frame);
        }
    }
    assert!(reason.is_some(), "the connection ends with a GOAWAY");
}

#[tokio::test]
async fn frames_that_are_too_long_or_make_no_sense_end_their_connection() {
    let host = Host::start(Config::default()).await;
    let settings_without_end = [0x80, 3, 0, 4, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    let greedy_headers = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff, 0, 0, 0, 99];
    let another_version = [0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    let even = [&[0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 2][..], &[0; 6]].concat();
    for wrong in [&settings_without_end[..], &greedy_headers, &another_version, &even] {
        let mut spdy = Spdy::process(&host.exec("wait", IN_OUT), &["error", "stdin", "stdout"]).await;
        spdy.said().await.expect("the session begins");
        spdy.write(wrong).await;
        is_left(spdy).await;
    }
    soon("the sessions to hear of it", || host.bench.left.load(Ordering::SeqCst) == 4).await;
    host.stop().await;
}

#[tokio::test]
async fn frames_that_carry_nothing_do_not_go_on_for_ever() {
    let host = Host::start(Config::default()).await;
    let made = |make: &dyn Fn(&mut BytesMut)| {
        let mut bytes = BytesMut::new();
        make(&mut bytes);
        bytes.repeat(5000)
    };
    let floods = [
        made(&|bytes| ping(1, bytes)),
        made(&|bytes| initial_window(70_000, bytes)),
        made(&|bytes| window_update(5, 1, bytes)),
        made(&|bytes| data(3, b"", false, bytes)),
    ];
    for flood in floods {
        let mut spdy = Spdy::process(&host.exec("wait", IN_OUT), &["error", "stdin", "stdout"]).await;
        spdy.said().await.expect("the session begins");
        // The server may leave before it has all of it.
        let _ = spdy.tcp.write_all(&flood).await;
        while spdy.next().await.is_some() {}
    }
    soon("the sessions to hear of it", || host.bench.left.load(Ordering::SeqCst) == 4).await;
    let mut answer = request("GET", &host.exec("wait", IN_OUT), &websocket("v5.channel.k8s.io")).await;
    let _ = answer.tcp.write_all(&message(9, b"").repeat(5000)).await;
    while receive(&mut answer.tcp, &mut answer.rest).await.is_some() {}
    soon("the session to hear of it", || host.bench.left.load(Ordering::SeqCst) == 5).await;
    host.stop().await;
}

#[tokio::test]
async fn no_more_streams_are_taken_than_there_are_uses_for() {
    let host = Host::start(Config::default()).await;
    let mut spdy = Spdy::connect(&host.exec("wait", IN_OUT), SPDY4).await;
    for _ in 0..50 {
        spdy.open(&[("streamType", "stderr")]).await;
    }
    let (mut taken, mut over) = (0, 0);
    while over < 50 {
        match spdy.next().await.expect("the connection goes on") {
            Frame::SynReply { .. } => taken += 1,
            // Refused at once, or let go because nobody asked for it.
            Frame::RstStream { .. } => over += 1,
            _ => {}
        }
    }
    assert!(taken < 50, "some are refused");
    for kind in ["error", "stdin", "stdout"] {
        spdy.open(&[("streamType", kind)]).await;
    }
    soon("the session to begin", || host.bench.begun.load(Ordering::SeqCst) == 1).await;
    drop(spdy);
    host.stop().await;
}

#[tokio::test]
async fn a_peer_whose_bytes_nobody_reads_is_held_back() {
    let host = Host::start(Config::default()).await;
    let mut spdy = Spdy::process(&host.exec("wait", IN_OUT), &["error", "stdin", "stdout"]).await;
    spdy.said().await.expect("the session begins");
    let mut frame = BytesMut::new();
    data(3, &vec![0; 64 << 10], false, &mut frame);
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), spdy.tcp.write(&frame)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "the server takes everything");
    }
    // Meanwhile others are served.
    let mut other = Spdy::process(&host.exec("head 2", IN_OUT), &["error", "stdin", "stdout"]).await;
    other.data(3, b"hi", false).await;
    assert!(matches!(other.said().await, Some(Frame::Data { stream: 3 | 5, .. })));
    drop((spdy, other));
    host.stop().await;
}

/// More than the server takes, and less than its kernel does: the peer's end arrives behind bytes that nobody reads.
#[tokio::test]
async fn the_leaving_of_a_peer_is_seen_behind_bytes_that_nobody_reads() {
    let host = Host::start(Config::default()).await;
    for url in [host.exec("wait", IN_OUT), host.exec("wait", IN_OUT)] {
        let mut spdy = Spdy::process(&url, &["error", "stdin", "stdout"]).await;
        spdy.said().await.expect("the session begins");
        spdy.data(3, &vec![0; 264 << 10], false).await;
    }
    soon("the sessions to hear of it", || host.bench.left.load(Ordering::SeqCst) == 2).await;
    host.stop().await;
}

/// client-go leaves after a minute without an answer to its pings; they may wait behind bytes that nobody reads.
#[tokio::test]
async fn a_peer_that_is_held_back_hears_that_we_are_here() {
    let host = Host::start(Config::default()).await;
    let Answer { mut tcp, mut rest, .. } =
        request("GET", &host.exec("wait", IN_OUT), &websocket("v5.channel.k8s.io")).await;
    tcp.write_all(&message(9, b"there?")).await.unwrap();
    let mut bytes = b"\0".to_vec();
    bytes.resize(1 << 15, 7);
    // More than is taken.
    for _ in 0..9 {
        tcp.write_all(&message(2, &bytes)).await.unwrap();
    }
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let (opcode, bytes) = receive(&mut tcp, &mut rest).await.expect("the connection stands");
        answers.extend((opcode == 10).then_some(bytes));
    }
    assert_eq!(answers, [&b"there?"[..], b""]);
    drop(tcp);
    host.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_its_process_wait_and_nobody_else() {
    let host = Host::start(Config::default()).await;
    let mut slow = Spdy::process(&host.exec("yes", OUT), &["error", "stdout"]).await;
    slow.said().await.expect("the session begins");
    for _ in 0..50 {
        let mut other = Spdy::process(&host.exec("write 100000", OUT), &["error", "stdout"]).await;
        let mut got = 0;
        while let Some(Frame::Data { stream, bytes, fin }) = other.said().await {
            got += if stream == 3 { bytes.len() } else { 0 };
            if stream == 3 && fin {
                break;
            }
        }
        assert_eq!(got, 100_000);
    }
    assert_eq!(host.bench.left.load(Ordering::SeqCst), 0, "it waits");
    drop(slow);
    soon("the process to break", || host.bench.left.load(Ordering::SeqCst) == 1).await;
    host.stop().await;
}

#[tokio::test]
async fn a_peer_that_keeps_windows_gets_no_more_than_it_has_room_for() {
    let host = Host::start(Config::default()).await;
    let mut spdy = Spdy::connect(&host.exec("write 200000", OUT), SPDY4).await;
    let mut update = BytesMut::new();
    spdy.open(&[("streamType", "error")]).await;
    // That shows that it counts; the process begins afterwards.
    window_update(1, 1, &mut update);
    spdy.write(&update).await;
    spdy.open(&[("streamType", "stdout")]).await;
    let mut got = 0;
    while got < 64 << 10 {
        let Some(Frame::Data { stream: 3, bytes, .. }) = spdy.said().await else { panic!("only data") };
        got += bytes.len();
    }
    assert_eq!(got, 64 << 10);
    // If there were more on its way, it would come before the answer.
    let mut asked = BytesMut::new();
    ping(7, &mut asked);
    spdy.write(&asked).await;
    assert_eq!(spdy.said().await, Some(Frame::Ping(7)));
    let mut update = BytesMut::new();
    window_update(3, 200_000, &mut update);
    spdy.write(&update).await;
    while let Some(frame) = spdy.said().await {
        let Frame::Data { stream: 3, bytes, fin } = frame else { continue };
        got += bytes.len();
        if fin {
            break;
        }
    }
    assert_eq!(got, 200_000);
    drop(spdy);
    host.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_byte_ends_in_time() {
    let config = Config { idle_timeout: Duration::from_millis(200), ..Config::default() };
    let host = Host::start(config).await;
    let mut spdy = Spdy::process(&host.exec("wait", IN_OUT), &["error", "stdin", "stdout"]).await;
    spdy.said().await.expect("the session begins");
    is_left(spdy).await;
    soon("the session to hear of it", || host.bench.left.load(Ordering::SeqCst) == 1).await;
    host.stop().await;
}

#[tokio::test]
async fn text_clients_send_and_get_base64() {
    let host = Host::start(Config::default()).await;
    let url = host.exec("head 5", IN_OUT);
    let Answer { status, head, mut tcp, mut rest } =
        request("GET", &url, &websocket("v4.base64.channel.k8s.io")).await;
    assert_eq!(status, 101);
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: v4.base64.channel.k8s.io"), "{head}");
    tcp.write_all(&message(1, b"0aGVsbG8=")).await.unwrap();
    assert_eq!(receive(&mut tcp, &mut rest).await, Some((1, b"1".to_vec())), "the connection stands");
    assert_eq!(receive(&mut tcp, &mut rest).await, Some((1, b"1aGVsbG8=".to_vec())));
    let (_, status) = receive(&mut tcp, &mut rest).await.unwrap();
    assert!(status.starts_with(b"3eyJtZXRhZGF0YS"), "a status on channel 3");
    assert_eq!(receive(&mut tcp, &mut rest).await, Some((8, vec![3, 232])), "a normal end");
    drop(tcp);
    host.stop().await;
}

#[tokio::test]
async fn a_closed_port_is_told_on_the_error_stream() {
    let host = Host::start(Config::default()).await;
    let mut spdy = Spdy::connect(&host.ports(&[]), SPDY_PORTS).await;
    let named = |kind| [("streamType", kind), ("port", "9"), ("requestID", "1")];
    let error = spdy.open(&named("error")).await;
    spdy.open(&named("data")).await;
    let mut text = Vec::new();
    while let Some(frame) = spdy.said().await {
        let Frame::Data { stream, bytes, fin } = frame else { continue };
        if stream == error {
            text.extend_from_slice(&bytes);
            if fin {
                break;
            }
        }
    }
    let expected = "error forwarding port 9 to pod pod: nobody listens on port 9";
    assert_eq!(String::from_utf8_lossy(&text), expected);
    drop(spdy);
    host.stop().await;
}

#[tokio::test]
async fn each_port_has_a_channel_for_data_and_one_for_errors() {
    let host = Host::start(Config::default()).await;
    for url in [host.ports(&[8080, 9]), host.ports(&[]) + "?port=8080,9"] {
        let Answer { status, mut tcp, mut rest, .. } =
            request("GET", &url, &websocket("v4.channel.k8s.io")).await;
        assert_eq!(status, 101);
        let (mut heads, mut error) = (Vec::new(), Vec::new());
        while heads.len() < 4 || error.is_empty() {
            let (_, message) = receive(&mut tcp, &mut rest).await.unwrap();
            if message.len() == 3 {
                heads.push(message);
            } else {
                error = message;
            }
        }
        heads.sort();
        let expected = [[0, 0x90, 0x1f], [1, 0x90, 0x1f], [2, 9, 0], [3, 9, 0]].map(Vec::from);
        assert_eq!(heads, expected);
        assert_eq!(
            error,
            [b"\x03", &b"error forwarding port 9 to pod pod: nobody listens on port 9"[..]].concat()
        );
        tcp.write_all(&message(2, b"\x00hello")).await.unwrap();
        assert_eq!(receive(&mut tcp, &mut rest).await, Some((2, b"\x00hello".to_vec())));
        tcp.write_all(&message(8, &[3, 232])).await.unwrap();
        assert_eq!(receive(&mut tcp, &mut rest).await, Some((8, vec![3, 232])));
    }
    soon("the connections to end", || host.bench.running.load(Ordering::SeqCst) == 0).await;
    host.stop().await;
}
