// Why something failed, what is now true of the data, and what to do: the first thing that anybody reads.
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Schemas } from "../api/client";
import { Words } from "../ui/parts";

/** Lines of what was said that are shown at once: what matters stands last. */
const LINE_COUNT = 8;

export function FailurePanel({ failure, step, run, actions }: { failure: Schemas["FailureView"]; step: string; run?: string | undefined; actions?: ReactNode }) {
  return (
    <section className="panel failure" aria-label="Why it failed">
      <header>
        <h2 className="grow"><Words text={failure.message} /></h2>
        <Link className="mono" to="/docs/$topic" params={{ topic: `reference~errors~${failure.code}` }}>{failure.code}</Link>
      </header>
      <div className="body stack">
        {failure.causes.length ? <Causes text={failure.causes.join("\n")} /> : null}
        <dl className="facts">
          <dt>Step</dt><dd>{run ? <Link to="/runs/$run" params={{ run }} search={{ step }}>{step}</Link> : step}</dd>
          {failure.data ? <><dt>Data</dt><dd><Words text={failure.data} /></dd></> : null}
          {failure.help.length ? <><dt>What to do</dt><dd>{failure.help.map((one) => <p key={one}><Words text={one} /></p>)}</dd></> : null}
        </dl>
        {actions ? <div className="row">{actions}</div> : null}
      </div>
    </section>
  );
}

function Causes({ text }: { text: string }) {
  const lines = text.trimEnd().split("\n");
  const last = lines.slice(-LINE_COUNT);
  const shown = <pre style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>{last.join("\n")}</pre>;
  if (lines.length <= LINE_COUNT) return shown;
  return (
    <>
      <details><summary className="muted">{lines.length - LINE_COUNT} lines before</summary><pre style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>{lines.slice(0, -LINE_COUNT).join("\n")}</pre></details>
      {shown}
    </>
  );
}
