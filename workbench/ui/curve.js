// A job's curves, live. props.value: {job}. New points come from the server by a cursor and are inserted: one small request a
// second, and none while the page is hidden; after the job's end one in ten seconds, since it may be resumed elsewhere.
// How the panels are drawn comes from the server, too, when there are points: nothing is drawn before.
const find = name => element.querySelector(name);
const host = find('.curve-host'), tools = find('.curve-tools'), note = find('.curve-note'), legend = find('.curve-legend');
const MOST = 60000;  // points; then the server is asked for a thinned history
const STORED = 'workbench-curve';
let look = {log: true, x: 'step', smoothing: 5};
try { look = {...look, ...JSON.parse(localStorage.getItem(STORED))}; } catch { /* what is stored is no JSON */ }
let view = null, points = [], series = new Map(), hidden = new Set();
let cursor = 0, job = null, ended = false, idle = 0, room = 0, answer = null, asked = '', request = 0;

function drawing() {
  room = host.clientWidth;
  const spec = workbench.fit(workbench.theme(answer.spec, true), Math.max(200, room - 80));
  spec.config.legend.orient = 'top';
  return {...spec, datasets: {points: points.slice()}};
}

function button(name, colour) {
  const made = Object.assign(document.createElement('button'), {type: 'button', textContent: name});
  made.style.setProperty('--line', colour);
  made.setAttribute('aria-pressed', !hidden.has(name));
  made.title = 'Show or hide';
  made.onclick = () => {
    if (!hidden.delete(name)) hidden.add(name);
    made.setAttribute('aria-pressed', !hidden.has(name));
    if (view) view.signal('hidden', [...hidden]).runAsync();
  };
  return made;
}

function paintTools() {
  const hasTime = points.some(row => row.time !== null);
  tools.hidden = !points.length;
  find('.curve-log').checked = look.log;
  find('.curve-smooth').value = look.smoothing;
  find('.curve-x').value = hasTime ? look.x : 'step';
  find('.curve-x').disabled = !hasTime;
  const colours = Object.entries(answer?.colours || {}), key = JSON.stringify([job, colours]);
  if (key === legend.dataset.key) return;
  legend.dataset.key = key;
  legend.replaceChildren(...(colours.length > 1 ? colours.map(line => button(...line)) : []));
}

async function specOf() {
  const question = {...look, x: find('.curve-x').value, series: [...series.values()]};
  const key = JSON.stringify(question);
  if (key === asked && answer) return;
  const mine = ++request, got = await server.draw(question);
  if (mine !== request) return;
  answer = got?.spec ? got : null;  // an error on the server comes back as undefined
  asked = key;
}

async function mount() {
  note.textContent = points.length || !job ? '' : 'No loss to show.';
  view = null;
  if (!points.length) { answer = null; paintTools(); return host.replaceChildren(); }
  paintTools();
  await specOf();
  if (!answer || !points.length) return;
  paintTools();
  const result = await workbench.draw(host, drawing);
  if (!result) return;
  view = result.view;
  view.signal('hidden', [...hidden]).data('points', points.slice()).runAsync();  // with those that came meanwhile
}

function add(rows) {
  const before = series.size;
  for (const row of rows) series.set(row.panel + ' ' + row.name, [row.panel, row.name]);
  return series.size > before;
}

async function tail() {
  if (!job || document.hidden || element.offsetParent === null) return;
  if (ended && ++idle % 10) return;
  const requested = job, got = await server.tail({job, after: cursor});
  if (requested !== job || !got || !Array.isArray(got.rows)) return;  // an error on the server comes back as undefined
  cursor = got.after;
  ended = got.ended && !got.rows.length;
  const first = got.rows.length ? got.rows[0].step : Infinity;
  const last = points.length ? points[points.length - 1].step : -1;
  const again = got.restart || first <= last;  // a resumed run went back to its checkpoint
  if (again) points = got.restart ? [] : points.filter(row => row.step < first);
  if (got.restart) series = new Map();
  points = points.concat(got.rows);
  host.dataset.points = new Set(points.map(row => row.step)).size;
  if (add(got.rows) || !view) { if (got.rows.length) await mount(); }
  else if (again) view.data('points', points.slice()).runAsync();
  else if (got.rows.length) view.insert('points', got.rows).runAsync();
  if (points.length > MOST) cursor = 0;
}

async function follow() {
  if (props.value?.job !== job) {
    job = props.value?.job; points = []; series = new Map(); hidden = new Set(); cursor = 0;
    host.dataset.points = 0;
    await mount();
  }
  ended = false;
  await tail();
}

function set(change) {
  look = {...look, ...change};
  localStorage.setItem(STORED, JSON.stringify(look));
  mount();
}
find('.curve-log').onchange = event => set({log: event.target.checked});
find('.curve-x').onchange = event => set({x: event.target.value});
find('.curve-smooth').onchange = event => set({smoothing: Number(event.target.value)});

watch('value', follow);
new MutationObserver(mount).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => { if (Math.abs(host.clientWidth - room) > 16) mount(); }).observe(host);
const timer = setInterval(() => element.isConnected ? tail() : clearInterval(timer), 1000);
await follow();
