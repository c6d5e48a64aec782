// Asks a pair and, beside it, another one; shows subquestions, answers and what they took as they come.
// Text from the server only ever becomes text: nothing here writes HTML.

const $ = (id) => document.getElementById(id);
const models = new Map();
let asking = null;
let recorded = false;

// As reports print it: what is just between two tenths goes to the even one, where toFixed takes the larger.
const tenths = (value) => (value % 1 === 0.25 ? Math.floor(value) + 0.2 : value).toFixed(1);
export const percent = (share) => `${tenths(100 * share)} %`;
const dollars = (usd) => (usd === null || usd === undefined ? "unknown" : usd === 0 ? "$0" : `$${usd.toPrecision(3)}`);

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function words(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

async function load() {
  const response = await fetch("v1/models", { headers: headers() });
  if (response.status === 401 || response.status === 403) {
    $("key-field").hidden = false;
    $("problem").textContent = $("key").value ? await words(response) : "This server asks for a key.";
    $("key").focus();
    return;
  }
  if (!response.ok) throw new Error(await words(response));
  $("problem").textContent = "";
  models.clear();
  const listed = await response.json();
  recorded = listed.fractionate.recorded;
  suggest(listed.fractionate.example);
  for (const model of listed.data) models.set(model.id, model);
  const able = [...models.values()].filter((model) => model.fractionate.answers_new_questions);
  fill($("pair"), able.map((model) => model.id));
  const others = ["", ...able.map((model) => model.id)];
  fill($("beside"), others);
  $("beside").value = others.find((id) => id === "fractionate/single") ?? others.find((id) => id.startsWith("fractionate/single")) ?? "";
  if (!able.length) $("problem").textContent = "No pair of this run can answer a new question: each has a recorded part.";
  showPanels();
}

function fill(select, ids) {
  const before = select.value;
  select.replaceChildren(...ids.map((id) => new Option(id.replace("fractionate/", "") || "nothing", id)));
  if (ids.includes(before)) select.value = before;
}

// An example stands ready to be asked, unless a question was typed before.
function suggest(example) {
  if (!example || $("question").value) return;
  $("question").value = example.question;
  $("question").select();
  $("context").value = example.context;
  $("more").open = example.context !== "";
}

function showPanels() {
  const wanted = [...new Set([$("pair").value, $("beside").value])].filter(Boolean);
  $("answers").replaceChildren(...wanted.map(panel));
}

function panel(id) {
  const section = $("panel").content.firstElementChild.cloneNode(true);
  const about = models.get(id).fractionate;
  section.dataset.model = id;
  section.querySelector("h2").textContent = id.replace("fractionate/", "");
  const who = about.decomposer === "none" ? about.solver : `${about.decomposer} → ${about.solver}`;
  section.querySelector(".who").textContent = `${about.strategy_label}: ${who}`;
  showMeasured(section, about.outcomes[0], []);
  return section;
}

function showMeasured(section, outcome, deviations) {
  const place = section.querySelector(".measured");
  place.replaceChildren();
  const strong = document.createElement("strong");
  place.append(strong);
  place.classList.toggle("deviates", deviations.length > 0);
  if (!outcome) {
    strong.textContent = "not measured";
    return;
  }
  const { value, ci_low, ci_high, n, metric, test_set, usd_per_1000 } = outcome;
  strong.textContent = deviations.length ? `differs from the measured kind: ${deviations.join(", ")}` : `${percent(value)} measured`;
  const unit = metric === "f1" ? "F1" : "exact match";
  const between = `${tenths(100 * ci_low)}–${tenths(100 * ci_high)}`;
  place.append(`${unit} (${between}), n = ${n}, ${test_set}; ${dollars(usd_per_1000)} per 1,000 questions`);
}

async function ask(event) {
  event.preventDefault();
  stop();
  showPanels();
  const abort = (asking = new AbortController());
  busy(true);
  const question = $("question").value;
  const context = $("context").value.trim();
  await Promise.all([...$("answers").children].map((section) => answer(section, question, context, abort.signal)));
  if (asking === abort) busy(false);
}

function busy(on) {
  $("send").disabled = on;
  $("stop").hidden = !on;
  if (!on) asking = null;
}

function stop() {
  asking?.abort();
  busy(false);
}

async function answer(section, question, context, signal) {
  const state = section.querySelector(".state");
  const say = (text, kind) => {
    state.textContent = text;
    state.className = `state ${kind}`;
  };
  const started = performance.now();
  const since = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  let first = "";
  say(section.dataset.model.includes("single") ? "answering" : "decomposing", "busy");
  try {
    const body = { model: section.dataset.model, stream: true, messages: [{ role: "user", content: question }] };
    if (context) body.fractionate = { context };
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await words(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      first ||= since();
      show(section, chunk, say);
      section.dataset.id = chunk.id;
    }
    say(`done in ${since()}, first words after ${first}`, "");
  } catch (error) {
    say(error.name === "AbortError" ? "stopped" : error.message, error.name === "AbortError" ? "" : "failed");
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    held += value ?? "";
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
    if (done) throw new Error("the connection ended before the answer did");
  }
}

function show(section, chunk, say) {
  const facts = chunk.fractionate ?? {};
  const steps = section.querySelector(".steps");
  if (facts.sub_answer) {
    fillStep(steps, facts.sub_answer.number - 1, facts.sub_answer.question, facts.sub_answer.answer);
  } else if (facts.subquestions && !facts.usage) {
    facts.subquestions.forEach((question) => fillStep(steps, steps.children.length, question));
    say("solving", "busy");
  }
  for (const choice of chunk.choices) {
    const said = choice.delta.content ?? choice.delta.refusal;
    if (said) section.querySelector(".said").append(said);
  }
  if (facts.usage) finish(section, facts);
}

function fillStep(steps, place, question, answer) {
  while (steps.children.length <= place) {
    const item = document.createElement("li");
    item.append(document.createElement("span"), document.createElement("b"));
    steps.append(item);
  }
  const [shownQuestion, shownAnswer] = steps.children[place].children;
  shownQuestion.textContent = question;
  if (answer !== undefined) shownAnswer.textContent = answer;
}

function finish(section, facts) {
  section.querySelector(".answer").textContent = facts.answer ?? "";
  showMeasured(section, facts.outcome, facts.deviations);
  const table = section.querySelector("table");
  const rows = ["decomposer", "solver"].filter((role) => facts.usage[role].calls).map((role) => row(role, facts));
  const all = { calls: 0, input_tokens: 0, output_tokens: 0 };
  for (const usage of Object.values(facts.usage)) for (const name of Object.keys(all)) all[name] += usage[name];
  const seconds = Object.values(facts.seconds).reduce((sum, one) => sum + one, 0);
  table.tBodies[0].replaceChildren(...rows, cells("all", all, facts.usd.total, seconds));
  table.hidden = false;
  section.querySelector(".feedback").hidden = !recorded;
}

const row = (role, facts) => cells(role, facts.usage[role], facts.usd[role], facts.seconds[role]);

function cells(name, usage, usd, seconds) {
  const line = document.createElement("tr");
  const told = [usage.calls, usage.input_tokens, usage.output_tokens, dollars(usd), seconds.toFixed(2)];
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  line.append(head, ...told.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return line;
}

async function sendFeedback(event) {
  const button = event.target.closest("button");
  if (!button || !button.closest(".feedback")) return;
  const section = button.closest(".panel");
  const body = { id: section.dataset.id };
  if ("correct" in button.dataset) body.answer = section.querySelector(".feedback input").value;
  else body.right = button.dataset.right === "true";
  const response = await fetch("v1/feedback", { method: "POST", headers: headers(), body: JSON.stringify(body) });
  section.querySelector(".thanks").textContent = response.ok ? "kept" : await words(response);
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

const reload = () => load().catch((error) => ($("problem").textContent = error.message));
$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", stop);
$("pair").addEventListener("change", showPanels);
$("beside").addEventListener("change", showPanels);
$("key").addEventListener("change", reload);
$("theme").addEventListener("click", switchTheme);
$("answers").addEventListener("click", sendFeedback);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
reload();
