// A job's loss, live. props.value: {job, log}; props.specs: {log, linear}. New points come from the server by a cursor and are
// inserted: one small request a second, and none while the page is hidden or the job has ended.
const host = element.querySelector('.curve-host'), note = element.querySelector('.curve-note');
let view = null, points = [], cursor = 0, job = null, ended = false, log = null, room = 0;

function drawing() {
  room = host.clientWidth;
  const spec = workbench.fit(workbench.theme(props.specs[log ? 'log' : 'linear'], true), Math.max(220, room - 70));
  spec.config.legend.orient = 'top';
  spec.encoding.color.legend.columns = Math.max(1, Math.floor(room / 200));  // a wider row would be cut off
  return {...spec, datasets: {points: points.slice()}};
}

async function mount() {
  log = props.value?.log !== false;
  note.textContent = points.length || !job ? '' : 'No loss to show.';
  host.dataset.points = points.length;
  view = null;
  if (!points.length) return host.replaceChildren();  // an empty chart has no axes
  const result = await workbench.draw(host, drawing);
  if (!result) return;
  view = result.view;
  view.data('points', points.slice()).runAsync();  // those that came meanwhile
}

async function tail() {
  if (!job || ended || document.hidden || element.offsetParent === null) return;
  const requested = job, answer = await server.tail({job, after: cursor});
  if (requested !== job || !answer || !Array.isArray(answer.rows)) return;  // an error on the server comes back as undefined
  const first = answer.rows.length ? answer.rows[0].step : Infinity;
  const last = points.length ? points[points.length - 1].step : -1;
  if (answer.restart || first <= last) {  // a resumed run went back to its checkpoint
    points = answer.restart ? [] : points.filter(row => row.step < first);
    points = points.concat(answer.rows);
    if (view) view.data('points', points.slice()).runAsync(); else await mount();
  } else if (answer.rows.length) {
    points = points.concat(answer.rows);
    if (view) view.insert('points', answer.rows).runAsync(); else await mount();
  }
  cursor = answer.after;
  ended = answer.ended && !answer.rows.length;
  host.dataset.points = points.length;
}

async function follow() {
  if (props.value?.job !== job) {
    job = props.value?.job; points = []; cursor = 0;
    await mount();
  }
  ended = false;
  if (log !== (props.value?.log !== false)) await mount();
  await tail();
}

watch('value', follow);
new MutationObserver(mount).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => { if (Math.abs(host.clientWidth - room) > 16) mount(); }).observe(host);
const timer = setInterval(() => element.isConnected ? tail() : clearInterval(timer), 1000);
await mount();
await follow();
