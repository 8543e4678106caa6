//! The tests' own instruments do what the tests rely on.
#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::netns::{self, Host, Lan, Trouble};
use gemmesh_tests::wait::until;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn hosts_reach_each_other_and_mdns_can_be_cut_alone() {
    if !netns::available() {
        return;
    }
    let mut lan = Lan::new();
    let (a, b) = (lan.host("a"), lan.host("b"));
    let receivers = b.run(|| [5353, 5354].map(receiver));
    let send = |port: u16| {
        a.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            // A firewall of one's own may say so at once.
            let _ = socket.send_to(b"hello", (b.address, port));
        });
    };
    let arrives = |socket: &UdpSocket| socket.recv(&mut [0; 8]).is_ok();

    send(5353);
    assert!(arrives(&receivers[0]), "mDNS passes at first");
    a.drop_mdns();
    send(5353);
    send(5354);
    assert!(arrives(&receivers[1]), "other ports pass");
    assert_eq!(a.mdns_dropped(), 1, "the mDNS packet was dropped");
    a.allow_mdns();
    send(5353);
    assert!(arrives(&receivers[0]), "mDNS passes again");
}

#[test]
fn a_bridge_can_cut_lose_and_be_mended() {
    if !netns::available() {
        return;
    }
    let mut lan = Lan::new();
    let (a, b) = (lan.host("a"), lan.host("b"));
    let sockets: Vec<_> = [&a, &b]
        .iter()
        .map(|host| host.run(|| receiver(5354)))
        .collect();
    let send = |from: usize, to: &Host, what: u8| {
        sockets[from]
            .send_to(&[what], (to.address, 5354))
            .expect("a socket that is not blocked");
    };
    // Once more in the end, by a path that is whole: what has not arrived before that never will.
    let next = |at: usize| {
        let mut what = [0];
        sockets[at].recv(&mut what).expect("a packet");
        what[0]
    };
    send(0, &b, 1);
    assert_eq!(next(1), 1, "a whole path");

    let mut trouble = Trouble::default();
    trouble.cut.insert((a.port, b.port));
    lan.set_trouble(&trouble);
    send(0, &b, 2);
    send(1, &a, 3);
    assert_eq!(next(0), 3, "the other way is whole");
    lan.set_trouble(&Trouble::default());
    send(0, &b, 4);
    assert_eq!(next(1), 4, "the one before was dropped");

    let mut trouble = Trouble::default();
    trouble.loss.insert(b.port, 30);
    lan.set_trouble(&trouble);
    (0..200).for_each(|_| send(0, &b, 5));
    lan.set_trouble(&Trouble::default());
    send(0, &b, 6);
    let arrived = (0..).take_while(|_| next(1) == 5).count();
    // 140 on average; the probability of this being wrong is below 10^-9.
    assert!((100..180).contains(&arrived), "{arrived} of 200 arrive");

    b.set_link(false);
    assert!(
        sockets[1].send_to(&[7], (a.address, 5354)).is_err(),
        "there is no network"
    );
    b.set_link(true);
    until("the network to be back", LIMIT, || {
        sockets[1]
            .send_to(&[8], (a.address, 5354))
            .map_err(|error| error.to_string())
    });
    assert_eq!(next(0), 8);
}

#[test]
fn a_browser_on_another_host_opens_a_page_and_is_driven() {
    if !netns::available() {
        return;
    }
    let mut lan = Lan::new();
    let (server, client) = (lan.host("server"), lan.host("client"));
    let listener = server
        .run(|| TcpListener::bind((server.address, 8080)))
        .expect("a listener");
    thread::spawn(move || listener.incoming().flatten().for_each(serve));

    let browser = Browser::on(&client);
    browser.open(&format!("http://{}:8080/", server.address));
    assert_eq!(
        browser.script("return isSecureContext", &[]),
        json!(false),
        "as on any LAN"
    );
    browser.fill("#name", "kitchen");
    browser.click("#greet");
    let text = browser.await_script(
        "a greeting",
        LIMIT,
        "return document.querySelector('p').textContent",
    );
    assert_eq!(text, "hello kitchen");
    assert_eq!(browser.text("p"), "hello kitchen");
    assert!(
        browser.log().contains("greeted"),
        "the log of the page is read"
    );
}

fn receiver(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a free port");
    socket.set_read_timeout(Some(LIMIT)).expect("a socket");
    socket
}

fn serve(mut stream: TcpStream) {
    let request = BufReader::new(stream.try_clone().expect("a socket"));
    let lines = request
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty());
    let _ = lines.count();
    let page = "<!doctype html><title>t</title><input id=name><button id=greet \
        onclick=\"document.querySelector('p').textContent = 'hello ' + document.querySelector('#name').value; \
        console.error('greeted')\">greet</button><p></p>";
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
}
