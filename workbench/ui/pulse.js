// Asks the app what is new: one small request every PERIOD, none while the page is hidden. The answer has one token for each area of
// the page that is on screen; where a token is another than the last, the area's event is run, and Python sends what has changed.
// A part that is shown for the first time is drawn then: `data-shown` is what the page has shown since it was loaded.
const PERIOD = 1500;
const PARTS = {plan: '#heat', students: '#launch', jobs: '#jobs', compare: '#compare-tabs'};  // area -> its place on the page
const RUN = {
  plan: () => trigger('plan', {}),
  students: () => trigger('students', {}),
  jobs: () => trigger('jobs', {}),
  compare: () => trigger('compare', {}),
};
let app = null, busy = false, again = false;
const seen = {};

const isOpen = area => Boolean(document.querySelector(PARTS[area])?.offsetParent);
const isPainted = () => Boolean(document.querySelector('#header h1'));  // the first paint is here: nothing may overtake it

async function ask() {
  if (document.hidden || !isPainted()) return;
  if (busy) { again = true; return; }
  busy = true;
  const open = Object.keys(PARTS).filter(isOpen), map = window.workbench.map?.shown() || {};
  const job = document.querySelector('#jobs [data-job][aria-current=true]')?.dataset.job || '';
  let answer;
  try { answer = await server.news({open, teacher: map.teacher || '', job}); } catch { /* the app cannot be reached: the next one may */ }
  busy = false;
  if (answer && answer.app) take(answer, map);
  if (again) { again = false; ask(); }
}

function take(answer, map) {
  app ??= answer.app;
  if (app !== answer.app) return location.reload();  // it was started again, and knows nothing of this window
  for (const area of Object.keys(RUN)) {
    const token = answer.tokens[area], isNews = token !== undefined && seen[area] !== token;
    // The map's version is the window's own: until the two agree, what another window did is still to come.
    const isBehind = area === 'plan' && answer.version !== null && answer.version !== map.version;
    if (token !== undefined) seen[area] = token;
    if (isNews || isBehind) RUN[area]();
  }
}

const soon = () => setTimeout(ask, 60);  // once the tab that was pressed is open
const onpress = event => event.target.closest?.('[role=tab], .overflow-dropdown button') && soon();
document.addEventListener('click', onpress, true);
document.addEventListener('visibilitychange', ask);
const timer = setInterval(() => {
  if (element.isConnected) return ask();
  clearInterval(timer);
  document.removeEventListener('click', onpress, true);
  document.removeEventListener('visibilitychange', ask);
}, PERIOD);
const first = setInterval(() => { if (isPainted()) { clearInterval(first); ask(); } }, 100);
