// The shell: which page is shown, the theme, the login, the state of the connection.

import { clusterPage } from "./cluster.js";
import { chartPage } from "./chart.js";
import { h, setClass, setText } from "./dom.js";
import { getJson, Live } from "./live.js";
import { raftPage } from "./raft.js";
import { sensorsPage } from "./sensors.js";

const PAGES = {
  cluster: ["Cluster", clusterPage],
  sensors: ["Sensors", sensorsPage],
  chart: ["Chart", chartPage],
  raft: ["Raft, live", raftPage],
};
const MISSING = ["No such page", missingPage];

const live = new Live();
const main = document.getElementById("main");
let leave = () => {};
let session = { required: false, name: null };
let shown = "";

function route() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  return [name || "cluster", new URLSearchParams(query)];
}

function show() {
  // "Skip to the content" is a hash too.
  if (location.hash === "#main") return;
  const [name, parameters] = route();
  leave();
  if (session.required && !session.name) {
    leave = () => {};
    main.replaceChildren(loginForm());
    document.getElementById("token").focus();
    document.getElementById("link").hidden = true;
    return;
  }
  document.getElementById("link").hidden = false;
  const [title, page] = Object.hasOwn(PAGES, name) ? PAGES[name] : MISSING;
  document.title = `${title} · Raftberry`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const root = h("div", {});
  main.replaceChildren(root);
  leave = page(root, live, parameters) ?? (() => {});
  // A new page is announced; the first one is where the reader begins anyway.
  if (shown && shown !== name) main.focus({ preventScroll: true });
  shown = name;
}

function missingPage(root) {
  root.append(
    h("h1", {}, "No such page"),
    h("p", {}, `There is none at ${location.hash}; see the `, h("a", { href: "#/cluster" }, "cluster"), "."));
}

function loginForm() {
  const error = h("p", { class: "error", role: "alert" });
  const field = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  async function submit(event) {
    event.preventDefault();
    setText(error, "");
    const answer = await fetch("/api/v1/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: field.value }),
    });
    if (answer.ok) await start();
    else setText(error, (await answer.json().catch(() => ({}))).error ?? `the node answered ${answer.status}`);
  }
  return h("section", { class: "card login" },
    h("h1", {}, "Log in"),
    h("p", { class: "muted" }, "This cluster asks for a token. Whoever runs it makes one on the command line."),
    h("form", { onsubmit: submit },
      h("label", { for: "token" }, "Token"), field, error,
      h("button", { class: "primary", type: "submit" }, "Log in")));
}

async function start() {
  session = await getJson("/api/v1/session").catch(() => session);
  document.getElementById("logout").hidden = !session.name;
  if (!session.required || session.name) live.open();
  show();
}

function showState() {
  const link = document.getElementById("link");
  const words = { open: [`from ${live.own}`, "pill good"], lost: ["connection lost, trying again", "pill bad"], connecting: ["connecting", "pill"] };
  const [text, look] = words[live.state];
  setText(link, text);
  setClass(link, look);
}

live.addEventListener("state", async () => {
  showState();
  if (live.state !== "lost") return;
  // EventSource does not tell why; an ended session is one reason, and it would not try again by itself.
  const now = await getJson("/api/v1/session").catch(() => null);
  if (now?.required && !now.name) {
    live.close();
    session = now;
    show();
  } else if (live.source?.readyState === EventSource.CLOSED) {
    setTimeout(() => live.open(), 1000);
  }
});

live.addEventListener("status", () => {
  const status = live.nodes.get(live.own)?.status;
  if (status) setText(document.getElementById("foot"), `Raftberry ${status.version} · cluster ${status.cluster_id || "not founded yet"} · seen through ${live.own}`);
});

document.addEventListener("login", start);
document.getElementById("logout").addEventListener("click", async () => {
  await fetch("/api/v1/session", { method: "DELETE" });
  live.close();
  await start();
});

const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = localStorage.getItem("theme") ?? "auto";

function applyTheme() {
  const isDark = theme === "dark" || (theme === "auto" && dark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  const button = document.getElementById("theme");
  setText(button, { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[theme]);
  button.setAttribute("aria-label", `Colours: ${theme}. Press to change.`);
  document.dispatchEvent(new Event("themechange"));
}

document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("theme", theme);
  applyTheme();
});
dark.addEventListener("change", applyTheme);
addEventListener("hashchange", show);
applyTheme();
showState();
start();
