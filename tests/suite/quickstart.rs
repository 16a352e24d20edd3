//! The quickstart's lines, run as they are printed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The demo, ended on drop.
struct Quickstart {
    child: Child,
    lines: Vec<String>,
}

impl Quickstart {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(["quickstart", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines = printed.take_while(|line| !line.contains("Ctrl-C")).collect();
        Self { child, lines }
    }

    fn curls(&self) -> Vec<&str> {
        self.lines.iter().filter(|line| line.starts_with("curl ")).map(String::as_str).collect()
    }

    fn interrupt(mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: a signal to a child that was not waited for yet, so its id is nobody else's.
        unsafe { libc::kill(id, libc::SIGINT) };
        self.child.wait().unwrap().code()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_printed_line_works_as_printed_and_shows_what_it_says() {
    let quickstart = Quickstart::start();
    let answers: Vec<String> = quickstart.curls().into_iter().map(shell).collect();
    let [first, write, changed, refused, spoofed, missing, invalid, trail] = &answers[..] else {
        panic!("{} lines: {:?}", answers.len(), quickstart.lines);
    };
    assert!(first.contains(r#"current_project_id=\"proj-789\""#) && first.contains("email=hdl_"), "{first}");
    assert!(!answers.iter().any(|answer| answer.contains("jane@example.org")), "a sensitive value is shown");
    assert!(write.contains(r#""cloakroom-set": "current_project_id=\"proj-790\"""#), "{write}");
    assert!(changed.contains(r#"current_project_id=\"proj-790\""#) && changed.contains(r#"\"2\""#), "{changed}");
    assert!(refused.starts_with("HTTP/1.1 502") && refused.contains("write-back-rejected"), "{refused}");
    assert!(spoofed.contains(r#"user_id=\"u-456\""#) && !spoofed.contains(r#"user_id=\"u-1\""#), "{spoofed}");
    assert!(missing.starts_with("HTTP/1.1 401") && missing.contains("credential-missing"), "{missing}");
    assert!(invalid.starts_with("HTTP/1.1 401") && invalid.contains("credential-invalid"), "{invalid}");
    let trail: serde_json::Value = serde_json::from_str(trail).unwrap();
    let actions: Vec<_> = trail["records"].as_array().unwrap().iter().map(|record| &record["action"]).collect();
    assert_eq!(actions, ["write", "create"]);
    assert_eq!(quickstart.interrupt(), Some(0));
}
