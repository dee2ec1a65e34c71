// A chart that only shows. props.spec is drawn again when it changes, when light turns dark, and when the room changes.
const host = element.querySelector('.figure-host');
let width = 0;

function drawing() {
  width = host.clientWidth;
  const layout = props.spec.usermeta || {}, narrow = width < 640;
  const spec = workbench.fit(workbench.theme(props.spec, true), Math.max(200, width - (narrow ? 110 : layout.room ?? 130)));
  spec.config.legend.orient = narrow ? 'top' : layout.legend ?? 'top';
  if (narrow) twoColumns(spec);
  return spec;
}
// A legend of more columns would be cut off at the right.
function twoColumns(node) {
  for (const [key, value] of Object.entries(node)) {
    if (!value || typeof value !== 'object' || key === 'data' || key === 'datasets') continue;
    if (key === 'legend' && value.columns) value.columns = 2;
    else twoColumns(value);
  }
}
const mount = () => props.spec ? workbench.draw(host, drawing) : host.replaceChildren();
watch('spec', mount);
new MutationObserver(mount).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => { if (Math.abs(host.clientWidth - width) > 16) mount(); }).observe(host);
await mount();
