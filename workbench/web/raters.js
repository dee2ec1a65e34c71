// The raters' page: shows the item where the rater is, sends the vote, goes on.
"use strict";

const KINDS = {
  pairs: {
    question: "Which picture is better?",
    about: "You will see two pictures at a time, made from the same description. Choose the better one; " +
      "if you cannot, choose “no difference”.",
    choices: [["a", "Left", "1"], ["tie", "No difference", "2"], ["b", "Right", "3"]],
  },
  abx: {
    question: "Is X the same as A or as B?",
    about: "You will see three pictures at a time. X is one of the other two: say which. Where you cannot " +
      "tell, guess.",
    choices: [["a", "X is A", "A"], ["b", "X is B", "B"]],
  },
  ratings: {
    question: "How good is this picture?",
    about: "You will see one picture at a time. Rate how good it looks, and how well it fits the " +
      "description. 1 is worst, 5 is best.",
    choices: [],
  },
};
const CRITERIA = [["quality", "Image quality"], ["alignment", "Fits the description"]];
const NAMES = { a: "Left", b: "Right", x: "X", one: "" };
const find = (id) => document.getElementById(id);
let state = {};
let ratings = {};
let since = 0;
let busy = false;
let ready = false;

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  };
  const answer = await fetch(path, options);
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || `status ${answer.status}`);
  return data;
}

function say(text) {
  find("message").textContent = text;
  find("message").hidden = !text;
}

function clear() {
  find("pictures").replaceChildren();
  find("answers").replaceChildren();
  find("text").replaceChildren();
  find("text").hidden = true;
  find("prompt").hidden = true;
  find("count").textContent = "";
}

function show(next) {
  state = next;
  ratings = {};
  clear();
  if (!state.begun) return showStart();
  find("bar").value = state.total ? state.position / state.total : 1;
  if (state.position >= state.total) return showEnd();
  find("question").textContent = KINDS[state.kind].question;
  find("count").textContent = `${state.position + 1} of ${state.total}`;
  find("prompt").textContent = state.prompt;
  find("prompt").hidden = !state.prompt;
  showPictures();
  showAnswers();
}

function showStart() {
  find("question").textContent = "Thank you for taking part";
  const begin = element("button", "Begin", { type: "button", class: "main" });
  begin.addEventListener("click", () => send("begin", {}));
  const keys = state.kind === "abx" ? "A and B" : state.kind === "pairs" ? "1, 2 and 3" : "1 to 5";
  find("text").append(
    element("p", KINDS[state.kind].about),
    element("p", `You can use the keys ${keys}. Each answer counts once and is saved at once: close the ` +
      "page whenever you like, and open the same link in the same browser to go on."),
    begin,
  );
  find("text").hidden = false;
  begin.focus();
}

function showEnd() {
  find("question").textContent = "That was all. Thank you!";
  find("text").append(element("p", "All your answers are saved. You can close this page."));
  find("text").hidden = false;
}

function showPictures() {
  const place = find("pictures");
  place.className = { 1: "single", 2: "pair", 3: "three" }[state.slots.length];
  const order = state.kind === "abx" ? ["x", "a", "b"] : state.slots;
  const loading = [];
  for (const slot of order) {
    const name = state.kind === "abx" ? slot.toUpperCase() : NAMES[slot];
    const figure = element("figure", "");
    const picture = element("img", "", { alt: name ? `Picture ${name}` : "Picture", draggable: "false" });
    picture.src = `picture/${state.position}/${slot}`;
    loading.push(picture.decode());
    figure.append(picture);
    if (name) figure.append(element("figcaption", name));
    place.append(figure);
  }
  ready = false;
  const position = state.position;
  Promise.all(loading).then(() => {
    if (position !== state.position) return;
    ready = true;
    since = performance.now();
    refresh();
  }, () => say("A picture could not be loaded. Reload the page."));
}

function showAnswers() {
  const form = find("answers");
  for (const [value, text, key] of KINDS[state.kind].choices) {
    const button = element("button", text, { type: "button", "data-choice": value });
    button.append(element("kbd", key));
    button.addEventListener("click", () => vote({ choice: value }));
    form.append(button);
  }
  if (state.kind !== "ratings") return refresh();
  for (const [name, text] of CRITERIA) {
    const group = element("fieldset", "", { "data-criterion": name });
    group.append(element("legend", text));
    for (let rating = 1; rating <= 5; rating++) {
      const button = element("button", rating, { type: "button", "data-rating": rating });
      button.addEventListener("click", () => rate(name, rating));
      group.append(button);
    }
    form.append(group);
  }
  const next = element("button", "Next", { type: "button", class: "main", id: "next" });
  next.append(element("kbd", "Enter"));
  next.addEventListener("click", () => vote({ ...ratings }));
  form.append(next);
  refresh();
}

function rate(name, rating) {
  ratings[name] = rating;
  refresh();
}

function refresh() {
  for (const button of document.querySelectorAll("#answers button")) button.disabled = busy || !ready;
  for (const group of document.querySelectorAll("fieldset")) {
    for (const button of group.querySelectorAll("button")) {
      const chosen = ratings[group.dataset.criterion] === Number(button.dataset.rating);
      button.setAttribute("aria-pressed", chosen);
    }
  }
  const next = find("next");
  if (next) next.disabled = busy || !ready || CRITERIA.some(([name]) => !ratings[name]);
}

function vote(answer) {
  if (!ready) return;
  const seconds = (performance.now() - since) / 1000;
  send("vote", { position: state.position, seconds, ...answer });
}

async function send(path, body) {
  if (busy) return;
  busy = true;
  refresh();
  try {
    const next = await ask(path, body);
    busy = false;
    say("");
    show(next);
  } catch (error) {
    busy = false;
    say(error.message === "Failed to fetch" ? "No connection. Your answer is not saved yet: try again." : error.message);
    refresh();
  }
}

// In pairs 1, 2, 3 or the arrows; in ABX A and B; ratings first the quality, then the alignment.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !state.begun || !ready) return;
  const key = event.key.toLowerCase();
  if (state.kind === "pairs") {
    const keys = { 1: "a", 2: "tie", 3: "b", arrowleft: "a", arrowdown: "tie", arrowright: "b" };
    if (keys[key]) { event.preventDefault(); vote({ choice: keys[key] }); }
  } else if (state.kind === "abx") {
    if (key === "a" || key === "b") { event.preventDefault(); vote({ choice: key }); }
  } else if ("12345".includes(key)) {
    const open = CRITERIA.find(([name]) => !ratings[name]) || CRITERIA[CRITERIA.length - 1];
    rate(open[0], Number(key));
  } else if (key === "enter" && !find("next").disabled && event.target.id !== "next") {
    event.preventDefault();
    vote({ ...ratings });
  } else if (key === "backspace") {
    ratings = {};
    refresh();
  }
});

ask("state").then(show, (error) => { find("question").textContent = ""; say(error.message); });
