# Draws 01-roofline.svg from 01-roofline.tsv; needs gnuplot 5.4 and nothing else:
#   gnuplot 01-roofline.gp
#   gnuplot -e "format='png'; theme='dark'" 01-roofline.gp
if (!exists('format')) format = 'svg' # svg, png, pdf or tex
if (!exists('theme')) theme = 'screen' # screen, print, dark or slides
name = '01-roofline'
width = 8.5000
height = 6.3400
# theme.gp - the look that all figures have in common.
# Set before these lines: format (svg, png, pdf or tex), theme (screen, print, dark or slides), name
# (of the files, without an ending), width and height in inches.
# Fonts: in all formats a font of 100 is one inch; svg has 100 pixels per inch, png takes 200 pixels
# per inch. The cairo terminals take a point for 4/3 of a pixel or point, which fontscale undoes.
# LaTeX chooses the fonts of tex: the picture is NAME-latex.pdf, its texts are NAME-latex.tex.
# Colours: Okabe and Ito, which readers with any colour vision tell apart. The shapes differ too, and
# in the theme print the dashes, for paper without colours.
set encoding utf8
set micro
set minussign
dark = theme eq 'dark'
thick = theme eq 'slides' ? 1.5 : theme eq 'print' ? 0.8 : 1.0
ground = dark ? '#17181A' : '#FFFFFF'
ink = dark ? '#E8E8EA' : theme eq 'print' ? '#000000' : '#222222'
quiet = dark ? '#A6ABB3' : theme eq 'print' ? '#333333' : '#6B6B6B'
warned = dark ? '#F0B95A' : '#A34A00'
rule = dark ? '#8A8F98' : '#555555' # axes
grid = dark ? '#33363B' : '#E4E4E4'
# On paper without colours the blue would be one of the greys.
accent = dark ? '#5AB4E5' : theme eq 'print' ? '#000000' : '#0072B2'
if (dark) {
  array colour[8] = ['#5AB4E5', '#F08A4B', '#3CC79A', '#E29FC6', '#F2BC3D', '#9AD3F5', '#E8E8EA', '#9A9A9A']
  array grey[4] = ['#5A5E66', '#7C818A', '#9DA2AB', '#45484F']
} else {
  array colour[8] = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#7F7F7F']
  array grey[4] = ['#BDBDBD', '#8C8C8C', '#6B6B6B', '#D9D9D9']
}
# The parts of a stack, which touch: in the theme print no neighbours have nearly one lightness.
array part[8]
do for [i=1:8] { part[i] = colour[i] }
if (theme eq 'print') {
  array part[8] = ['#404040', '#BDBDBD', '#7F7F7F', '#E0E0E0', '#000000', '#A6A6A6', '#595959', '#CFCFCF']
}
array shape[8] = [7, 5, 9, 13, 11, 15, 6, 4]
if (format eq 'svg') {
  set terminal svg size 100*width, 100*height dynamic font 'DejaVu Sans,17' \
    linewidth 1.6*thick noenhanced background ground
}
if (format eq 'png') {
  set terminal pngcairo size 200*width, 200*height font 'DejaVu Sans,17' fontscale 1.5 \
    linewidth 3*thick noenhanced background ground
}
if (format eq 'pdf') {
  set terminal pdfcairo size width in, height in font 'DejaVu Sans,17' fontscale 0.54 \
    linewidth 1.6*thick noenhanced background ground
}
if (format eq 'tex') {
  set terminal cairolatex pdf input color colortext size width in, height in linewidth 1.6*thick
}
set output name.(format eq 'tex' ? '-latex.tex' : '.'.format)
data = name.'.tsv'
do for [i=1:8] {
  set style line i linecolor rgb colour[i] linewidth 1.6 pointtype shape[i] dashtype 1
}
if (theme eq 'print') {
  # gnuplot's own dashes are five. The others are longer, shorter and mixed.
  do for [i=2:5] { set style line i dashtype i }
  set style line 6 dashtype (24,6)
  set style line 7 dashtype (4,4)
  set style line 8 dashtype (16,4,4,4,4,4,4,4)
}
unset key
set border 3 linecolor rgb rule
set tics nomirror out textcolor rgb quiet scale 0.6
set grid linecolor rgb grid linewidth 0.5 linetype 1
set pointintervalbox 0
# The svg and the LaTeX terminal draw points larger.
large = format eq 'svg' || format eq 'tex'
set pointsize (large ? 0.55 : 1.1)
sign = large ? 0.9 : 1.8 # size of the points in legends
set label 1001 'The cases under the machine’s roofline' at screen 0.0200,0.9527 left font ',17' textcolor rgb ink
set label 1002 'isa default · shrink 1' at screen 0.0200,0.9085 left font ',11' textcolor rgb quiet
set label 1003 'Intel(R) Xeon(R) Processor, 2 threads, avx512_vnni · mean of 3 to 9 rounds, 95% intervals' at screen 0.0200,0.8770 left font ',11' textcolor rgb quiet
set label 3001 '' at screen 0.0294,0.8249 point pointtype shape[1] pointsize sign linecolor rgb colour[1]
set label 5001 'f32' at screen 0.0482,0.8249 left font ',14' textcolor rgb ink
set label 3002 '' at screen 0.1209,0.8249 point pointtype shape[2] pointsize sign linecolor rgb colour[2]
set label 5002 'bf16' at screen 0.1398,0.8249 left font ',14' textcolor rgb ink
set label 3003 '' at screen 0.2230,0.8249 point pointtype shape[3] pointsize sign linecolor rgb colour[3]
set label 5003 'i8' at screen 0.2418,0.8249 left font ',14' textcolor rgb ink
set logscale x
set logscale y
set xrange [0.11251899673:4550.34274103]
set yrange [4029724555.85:492762261807]
set ytics ('' 5000000000 1, '' 6000000000 1, '' 7000000000 1, '' 8000000000 1, '' 9000000000 1, '10 GFLOP/s' 10000000000 0, '' 20000000000 1, '' 30000000000 1, '' 40000000000 1, '' 50000000000 1, '' 60000000000 1, '' 70000000000 1, '' 80000000000 1, '' 90000000000 1, '100 GFLOP/s' 100000000000 0, '' 200000000000 1, '' 300000000000 1, '' 400000000000 1) font ',15'
set xtics ('' 0.2 1, '' 0.3 1, '' 0.4 1, '' 0.5 1, '' 0.6 1, '' 0.7 1, '' 0.8 1, '' 0.9 1, '1 FLOP/B' 1 0, '' 2 1, '' 3 1, '' 4 1, '' 5 1, '' 6 1, '' 7 1, '' 8 1, '' 9 1, '10 FLOP/B' 10 0, '' 20 1, '' 30 1, '' 40 1, '' 50 1, '' 60 1, '' 70 1, '' 80 1, '' 90 1, '100 FLOP/B' 100 0, '' 200 1, '' 300 1, '' 400 1, '' 500 1, '' 600 1, '' 700 1, '' 800 1, '' 900 1, '1 kFLOP/B' 1000 0, '' 2000 1, '' 3000 1, '' 4000 1) font ',15'
set lmargin at screen 0.1662
set rmargin at screen 0.9765
set bmargin at screen 0.1246
set tmargin at screen 0.7397
set label 152 'flop_rate' at screen 0.1662,0.7650 left font ',14' textcolor rgb quiet
set label 151 'intensity' at screen 0.5714,0.0489 center font ',14' textcolor rgb quiet
set label 10001 '29.0 GiB/s' at screen 0.2104,0.1538 left font ',11' textcolor rgb quiet
set label 10002 '352 GFLOP/s' at screen 0.9465,0.7155 right font ',11' textcolor rgb quiet
set label 10003 'G 1' at screen 0.2919,0.2873 left font ',11' textcolor rgb ink
set label 10004 'G 4' at screen 0.3978,0.4693 left font ',11' textcolor rgb ink
set label 10005 'prefill, D 64' at screen 0.7978,0.6608 right font ',11' textcolor rgb ink
set label 10006 'prefill, D 128' at screen 0.8167,0.6892 left font ',11' textcolor rgb ink
set label 10007 'G 1' at screen 0.3449,0.3801 left font ',11' textcolor rgb ink
set label 10008 'G 4' at screen 0.4508,0.5439 left font ',11' textcolor rgb ink
set label 10009 'prefill, D 128' at screen 0.8743,0.6669 left font ',11' textcolor rgb ink
set label 10010 'G 1' at screen 0.3719,0.4625 right font ',11' textcolor rgb ink
plot data index 0 using 1:2 with lines linecolor rgb quiet linewidth 1.4 notitle, \
     data index 1 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 1 linewidth 1.1 notitle, \
     data index 2 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 2 linewidth 1.1 notitle, \
     data index 3 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 3 linewidth 1.1 notitle
unset output
