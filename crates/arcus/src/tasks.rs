//! `arcus task`: what was asked of the cloud and is not instant.

use crate::cli::{TaskCommand, Tasks};
use crate::session::Session;
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How long a watch goes on without an answer: a server that is started again takes up what it was doing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Prints an answer as it is.
pub fn print_json(answer: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(answer)?);
    Ok(())
}

/// A field as text; what is not there is a dash.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Runs the command.
pub fn tasks(options: Tasks) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = Session::admin(&options.home.home).await?;
        let answer = match &options.command {
            TaskCommand::List { state, kind, limit } => {
                let mut path = format!("/arcus/v1/tasks?limit={limit}");
                for (key, value) in [("state", state), ("kind", kind)] {
                    if let Some(value) = value {
                        path.push_str(&format!("&{key}={value}"));
                    }
                }
                admin.get(&path).await?
            }
            TaskCommand::Show { id } => admin.get(&format!("/arcus/v1/tasks/{id}")).await?,
            TaskCommand::Watch { id } => return watch(&admin, id, options.json).await,
            TaskCommand::Cancel { id } => admin.post(&format!("/arcus/v1/tasks/{id}/cancel"), json!({})).await?,
            TaskCommand::Retry { id } => admin.post(&format!("/arcus/v1/tasks/{id}/retry"), json!({})).await?,
        };
        if options.json {
            return print_json(&answer);
        }
        match answer["tasks"].as_array() {
            Some(all) => {
                println!("{:<36}  {:<20} {:<20} {:>5}  state", "task", "kind", "of", "done");
                all.iter().for_each(|task| println!("{}", line(task)));
            }
            None => show(&answer["task"]),
        }
        Ok(())
    })
}

fn line(task: &Value) -> String {
    let error = task["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
    format!(
        "{}  {:<20} {:<20} {:>3} %  {}{error}",
        text(&task["id"]),
        text(&task["kind"]),
        text(&task["resource"]["name"]),
        text(&task["progress_percent"]),
        text(&task["state"])
    )
}

fn show(task: &Value) {
    for (name, value) in task.as_object().into_iter().flatten() {
        println!("{name:<18} {}", text(value));
    }
}

/// Follows a task until it is over: a bar on a terminal, a line for each change elsewhere.
pub async fn watch(admin: &Session, id: &str, json: bool) -> Result<()> {
    let bar = (!json && std::io::stderr().is_terminal()).then(|| {
        let bar = ProgressBar::new(100);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent} % ({elapsed})") {
            bar.set_style(style);
        }
        bar
    });
    let mut heard = Instant::now();
    // A watch lasts some minutes at most: whoever wants to know more asks again.
    loop {
        let mut answer = match admin.stream(&format!("/arcus/v1/tasks/{id}/events")).await {
            Err(error) if error.is::<reqwest::Error>() && heard.elapsed() < SILENCE_MAX => {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            answer => answer?,
        };
        let mut pending = String::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            heard = Instant::now();
            pending.push_str(&String::from_utf8_lossy(&piece));
            while let Some((event, rest)) = pending.split_once("\n\n").map(|(e, r)| (e.to_owned(), r.to_owned())) {
                pending = rest;
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                let task: Value = serde_json::from_str(data)?;
                match &bar {
                    _ if json => println!("{data}"),
                    Some(bar) => {
                        bar.set_position(task["progress_percent"].as_u64().unwrap_or(0));
                        bar.set_message(format!("{} {}", text(&task["resource"]["name"]), text(&task["step"])));
                    }
                    None => println!("{} {}", line(&task), text(&task["step"])),
                }
                match task["state"].as_str() {
                    Some("done") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        bail!("the task is {}: {}", text(&task["state"]), text(&task["error"]))
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
}
